"""Processes that have imported vLLM and fork for each list of jobs: the imports take ten seconds of CPU.

Two are enough: one for the tests whose Triton kernels run interpreted, one for all others. Each ends with
whoever started it.
"""

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support import ROOT

_ENV = {
    "VLLM_LOGGING_LEVEL": "INFO",  # a decoder opened earlier in this process may have lowered it
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'sidecar'}",
}
# What is read while vLLM is imported; all else that tests set is read when an engine starts.
_READ_BY_IMPORTS = ("TRITON_INTERPRET",)


class Run:
    """One list of jobs in a forked process."""

    def __init__(self, channel: "Connection[bytes, bytes]") -> None:
        self._channel = channel
        self.pid = int(channel.recv_bytes())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the number of failed jobs, or None as long as any runs."""
        if self.returncode is None and self._channel.poll():
            self.wait()
        return self.returncode

    def wait(self) -> None:
        """Wait for the end."""
        if self.returncode is None:
            self.returncode = int(self._channel.recv_bytes())


class Importer:
    """The process; it ends when nobody holds this any more."""

    def __init__(self, env: Mapping[str, str | None]) -> None:
        self._env = _full(env)
        self._channel, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", "tests.support.vllm.engine", str(theirs.fileno())]
            process = subprocess.Popen(command, cwd=ROOT, env=self._env, pass_fds=[theirs.fileno()])
        weakref.finalize(self, _end, self._channel, process)

    def start(self, folder: Path, env: Mapping[str, str | None]) -> Run:
        """Run the jobs of this folder in the environment of now, with these changes."""
        wanted = _full(env)
        changes: dict[str, str | None] = dict.fromkeys(self._env.keys() - wanted.keys())
        changes |= {name: value for name, value in wanted.items() if self._env.get(name) != value}
        self._channel.send_bytes(json.dumps({"folder": str(folder), "env": changes}).encode())
        return Run(self._channel)


def _full(env: Mapping[str, str | None]) -> dict[str, str]:
    variables = {**os.environ, **_ENV, **env}
    return {name: value for name, value in variables.items() if value is not None}


def _end(channel: "Connection[bytes, bytes]", process: "subprocess.Popen[bytes]") -> None:
    channel.close()
    process.kill()
    process.wait()


@lru_cache(maxsize=2)
def _importer(env: frozenset[tuple[str, str | None]]) -> Importer:
    return Importer(dict(env))


def start(folder: Path, env: Mapping[str, str | None]) -> Run:
    """Run the jobs of a folder in a child of a process that has imported vLLM, in this environment.

    ``env`` sets variables, or removes those with the value None.
    """
    imported = frozenset((name, value) for name, value in env.items() if name in _READ_BY_IMPORTS)
    return _importer(imported).start(folder, env)
