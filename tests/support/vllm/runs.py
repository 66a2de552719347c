"""Run engines in a process and collect their plugins' messages like a sidecar."""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from msgspec.structs import asdict

from subtext_sidecar.contract.record import VERSION, Header, Record, decode_coverage
from subtext_sidecar.local import wire
from subtext_sidecar.local.block import Block, decode_block
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.local.wire import CaptureStatus
from tests.support.secret import write_secret
from tests.support.vllm import importer

LAYER = 20
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": 32,
    "served_model_name": "smollm2",
}
_DEADLINE_SECONDS = 800
# Relative to the job's directory, so that all jobs can have the same configuration.
_SOCKET = "capture.sock"
_SECRET_FILE = "draw_secret"


@dataclass(kw_only=True)
class EngineRun:
    """The results of one engine."""

    context: int
    """Largest number of positions per request."""
    records: list[Record] = field(default_factory=list)
    statuses: list[CaptureStatus] = field(default_factory=list)
    coverage: dict[tuple[str, str, int], dict[str, int]] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    log: str = ""

    @property
    def texts(self) -> dict[str, list[int]]:
        """Token ids of prompt and answer, by external request id."""
        texts: dict[str, list[int]] = self.result["texts"]
        return texts

    def counts(self) -> Counter[str]:
        """Return the coverage counts, summed over minutes."""
        total: Counter[str] = Counter()
        for counts in self.coverage.values():
            total.update(counts)
        return total

    def take(self, message: list[bytes]) -> None:
        """Decode and store one message; an invalid one fails the test."""
        kind, *frames = message
        if kind == wire.BLOCK:
            self.records += records_of(decode_block(*frames))
        elif kind == wire.STATUS:
            self.statuses.append(wire.decode_status(frames[0]))
        else:
            count = decode_coverage(frames[0])
            self.coverage[count.source, count.stratum, count.minute] = count.counts


def records_of(block: Block) -> list[Record]:
    """Return a block's rows as records, like a sidecar without a screen."""
    header = block.header
    norms = np.linalg.norm(block.values(), axis=1)
    return [
        Record(
            Header(
                v=VERSION,
                model=header.model,
                request=header.requests[header.request[row]],
                layer=header.layer,
                norm=float(norms[row]),
                baseline_probability=header.rows[row].probability,
                captured_at=header.captured_at,
                dtype=header.dtype,
                shape=(header.d_model,),
                **asdict(header.rows[row]),
            ),
            block.row_bytes(row),
        )
        for row in range(len(block))
    ]


def request(
    number: int,
    prompt: list[int],
    *,
    arrives: int = 0,
    abort_after: int | None = None,
    embedded_width: int = 0,
    **sampling: Any,
) -> dict[str, Any]:
    """Return a request that arrives before step ``arrives`` and is aborted after ``abort_after`` tokens.

    With ``embedded_width`` its prompt is as many embeddings of that width, all of zeros.
    """
    return {
        "id": str(number),
        "prompt": prompt,
        "arrives": arrives,
        "abort_after": abort_after,
        "embedded_width": embedded_width,
        "sampling": sampling,
    }


def job(
    model_dir: Path,
    requests: list[dict[str, Any]],
    *,
    subtext: dict[str, Any] | None,
    policy: CapturePolicy | None = None,
    engine: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return one engine's job; ``subtext`` is the plugin's configuration, None for no plugin.

    A job with ``half="prefill"`` runs at once with the next one, which has ``half="decode"`` and goes on
    with its requests, by their ids. ``env`` sets variables for this job alone. ``sessions``
    of streaming inputs run after the requests.
    """
    arguments = {**ENGINE, "model": str(model_dir), **(engine or {})}
    if subtext is not None:
        chosen = asdict(policy) if policy is not None else {}
        arguments["additional_config"] = {
            "subtext": {
                "layer": LAYER,
                "socket": f"ipc://{_SOCKET}",
                "secret_file": _SECRET_FILE,
                **chosen,
                **subtext,
            }
        }
    full = {"engine": arguments, "requests": requests, "attributes": False, "asynchronous": False}
    return {**full, "half": None, "env": {}, "sessions": [], **changes}


def run_jobs(
    folder: Path, jobs: list[dict[str, Any]], env: Mapping[str, str | None] | None = None
) -> list[EngineRun]:
    """Run the jobs one after the other, each with its own process, directory and socket.

    ``env`` sets variables, or removes those with the value None.
    """
    runs = [EngineRun(context=job["engine"]["max_model_len"]) for job in jobs]
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        sockets = []
        for number in range(len(jobs)):
            (folder / str(number)).mkdir()
            write_secret(folder / str(number) / _SECRET_FILE)
            sockets.append(stack.enter_context(context.socket(zmq.PULL)))
            sockets[-1].bind(f"ipc://{folder}/{number}/{_SOCKET}")
        (folder / "jobs.json").write_text(json.dumps(jobs))
        log = _run_process(folder, env or {}, sockets, runs)
    for number, run in enumerate(runs):
        run.result, run.log = json.loads((folder / str(number) / "result.json").read_text()), log
    return runs


def _run_process(
    folder: Path, env: Mapping[str, str | None], sockets: list["zmq.Socket[bytes]"], runs: list[EngineRun]
) -> str:
    process = importer.start(folder, env)
    try:
        _collect(runs, sockets, process)
    finally:
        # The process's children, the engines, must end too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = (folder / "log").read_text(errors="replace")
    assert process.returncode == 0, text[-5000:]
    return text


def _collect(runs: list[EngineRun], sockets: list["zmq.Socket[bytes]"], process: importer.Run) -> None:
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        ready = dict(poller.poll(100))
        for socket, run in zip(sockets, runs, strict=True):
            if socket in ready:
                run.take(socket.recv_multipart())
        if not ready and process.poll() is not None:
            return
    message = "the engines did not end in time"
    raise TimeoutError(message)
