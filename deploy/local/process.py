"""One started process of the demo: its log, its end, and its last words when it fails."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TAIL_LINES = 25
_TETHER_MARGIN_SECONDS = 12.0  # the tether's own time to end what the command leaves behind


class ProcessDiedError(RuntimeError):
    """A process ended when it should not have; the message holds the tail of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run: pure data, so that a test can judge it without starting anything."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]  # on top of the demo's own
    grace_seconds: float = 10.0  # between SIGTERM and SIGKILL
    is_store: bool = False  # stopped after all others, which flush into it


class DemoProcess:
    """A running process under its tether."""

    def __init__(self, spec: ProcessSpec, log_path: Path) -> None:
        """Start it; stdout and stderr go to ``log_path``. Call from the main thread only.

        The kernel ties a tether to the thread that started it, not to the process.
        """
        self.spec = spec
        self.log_path = log_path
        tether = (sys.executable, "-m", "deploy.local.tether", str(os.getpid()), str(spec.grace_seconds))
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*tether, *spec.command],
                env=os.environ | dict(spec.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must reach the demo alone, which stops in order
            )

    @property
    def pid(self) -> int:
        """Return the tether's process id; what the command started is below it."""
        return self._process.pid

    def check(self) -> None:
        """Raise ProcessDiedError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise ProcessDiedError(
                f"{self.spec.name} ended with status {code}. Last lines of {self.log_path}:\n{self.tail()}"
            )

    def has_succeeded(self) -> bool:
        """Tell whether it ended with status 0; raises ProcessDiedError when it ended otherwise."""
        if self._process.poll() == 0:
            return True
        self.check()
        return False

    def tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])

    def ask_to_stop(self) -> None:
        """Send SIGTERM and return at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> bool:
        """Wait until process and tether are gone; True when it had to be killed.

        The tether escalates by itself; its own SIGKILL is for a tether that hangs.
        """
        deadline = time.monotonic() + self.spec.grace_seconds + _TETHER_MARGIN_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._process.poll() is not None:
            return False
        self._process.kill()
        self._process.wait()
        return True
