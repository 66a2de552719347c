"""A real worker process around the in-memory decoder, which stops where it is told to.

Usage: ``python -m tests.integration.workers.consumer.runner [MODE]``; settings as `subtext worker`.
Without MODE it reads modes, one a line, runs each in a child and answers with the child's status: the
imports, which take longer than the work, are done once.
MODE is one of
CHECKPOINT: kill this process with SIGKILL there;
drain: end once the stream is empty;
hang: work like `subtext worker` with a decoder that never answers for a real vector;
hold: work like `subtext worker`, but say "fetched" and wait for a line on stdin before the first batch.
"""

import os
import signal
import sys
import threading

import numpy as np
from numpy.typing import NDArray

from workers import cli, log
from workers.consumer import serving, wiring
from workers.consumer.loop import Checkpoint
from workers.judge.embedder import WordEmbedder
from workers.nla.decoder import GivenFacts, Reading
from workers.nla.fake import FakeDecoder
from workers.settings import WorkerSettings

HANGING_SECONDS = 5.0
"""From the moment that a hanging worker's liveness fails until it ends itself."""


class HangingDecoder(FakeDecoder):
    """Reads the known vector, whose first figure is positive, and hangs on any other."""

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        if vectors[0, 0] < 0:
            threading.Event().wait()
        return super().read(vectors, given)


def run(mode: str) -> int:
    settings = WorkerSettings()
    log.configure("ERROR")
    stop = threading.Event()

    def reached(checkpoint: Checkpoint) -> None:
        if checkpoint == mode:
            os.kill(os.getpid(), signal.SIGKILL)
        if (mode, checkpoint) == ("hold", "fetched"):
            print("fetched", flush=True)  # noqa: T201  # the test reads it
            sys.stdin.readline()

    if mode in {"hold", "hang"}:
        cli.stop_on_signals(stop)
    parts = wiring.build(settings, stop, version="test")
    decoder = HangingDecoder() if mode == "hang" else FakeDecoder()
    loop = parts.connect(decoder, None, embedder=WordEmbedder(), reached=reached)
    assert loop is not None
    if mode == "hang":
        print(parts.health.port, flush=True)  # noqa: T201  # the test reads it
    if mode in {"hold", "hang"}:
        status = serving.serve(parts, loop, grace_seconds=HANGING_SECONDS)
        parts.close()
        return status
    while mode != "drain" or parts.queue.backlog().entries > 0:
        loop.step()
    return 0


def run_in_children() -> int:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(line.strip()))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  # the test reads it
    return 0


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]) if sys.argv[1:] else run_in_children())
