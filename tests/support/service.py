"""The service as a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def running_service(**settings: str) -> Iterator["subprocess.Popen[str]"]:
    """Run ``subtext service`` until the block ends; ``settings`` without their prefix, stderr in a pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "service"],
        env=os.environ | {f"SUBTEXT_{name.upper()}": value for name, value in settings.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
