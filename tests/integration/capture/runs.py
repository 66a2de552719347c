"""Start an engine process and collect everything that its plugin sends, as a sidecar would."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from subtext_sidecar import wire
from subtext_sidecar.record import Record, decode, decode_coverage
from subtext_sidecar.wire import CaptureStatus
from tests.conftest import ROOT

LAYER = 20
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": 32,
    "served_model_name": "smollm2",
}
_DEADLINE_SECONDS = 500


@dataclass(kw_only=True)
class EngineRun:
    """What came out of one engine process."""

    records: list[Record] = field(default_factory=list)
    statuses: list[CaptureStatus] = field(default_factory=list)
    coverage: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    log: str = ""

    @property
    def texts(self) -> dict[str, list[int]]:
        """Token ids of each request, prompt and answer, by external request id."""
        texts: dict[str, list[int]] = self.result["texts"]
        return texts

    def counts(self) -> Counter[str]:
        """Coverage summed over minutes."""
        total: Counter[str] = Counter()
        for counts in self.coverage.values():
            total.update(counts)
        return total

    def take(self, message: list[bytes]) -> None:
        """Sort one message in; anything invalid fails the test."""
        kind, *frames = message
        if kind == wire.RECORDS:
            self.records += [decode(*frames[first : first + 2]) for first in range(0, len(frames), 2)]
        elif kind == wire.STATUS:
            self.statuses.append(wire.decode_status(frames[0]))
        else:
            count = decode_coverage(frames[0])
            self.coverage[count.source, count.minute] = count.counts


def run_engine(
    folder: Path,
    model_dir: Path,
    prompts: list[list[int]],
    *,
    subtext: dict[str, Any] | None,
    engine: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    **job: Any,
) -> EngineRun:
    """Run one engine to its end. ``subtext`` is the plugin's configuration, without its socket."""
    address = f"ipc://{folder}/s.sock"
    arguments = {**ENGINE, "model": str(model_dir), **(engine or {})}
    if subtext is not None:
        arguments["additional_config"] = {"subtext": {"layer": LAYER, "socket": address, **subtext}}
    full = {
        "engine": arguments,
        "prompts": prompts,
        "sampling": {},
        "rounds": 1,
        "attributes": False,
        **job,
    }
    (folder / "job.json").write_text(json.dumps(full))
    run = EngineRun()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket, (folder / "log").open("wb") as log:
        socket.bind(address)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.integration.capture.engine",
                folder / "job.json",
                folder / "result.json",
            ],
            cwd=ROOT,
            env={**os.environ, **_ENGINE_ENV, **(env or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _collect(run, socket, process)
        finally:
            process.kill()
            process.wait()
    run.log = (folder / "log").read_text(errors="replace")
    assert process.returncode == 0, run.log[-5000:]
    run.result = json.loads((folder / "result.json").read_text())
    return run


_ENGINE_ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def _collect(run: EngineRun, socket: "zmq.Socket[bytes]", process: "subprocess.Popen[bytes]") -> None:
    waited = 0.0
    while True:
        if socket.poll(100):
            run.take(socket.recv_multipart())
        elif process.poll() is not None:
            return
        else:
            waited += 0.1
            assert waited < _DEADLINE_SECONDS, "the engine did not end in time"
