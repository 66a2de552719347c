"""A real worker process around the in-memory decoder, which kills itself where it is told to.

Usage: ``python -m tests.integration.workers.runner CHECKPOINT|drain``; settings as `subtext worker`.
With ``drain`` it ends by itself once the stream is empty.
"""

import os
import signal
import sys
import threading

from workers import log, wiring
from workers.judge.embedder import WordEmbedder
from workers.loop import Checkpoint
from workers.nla.fake import FakeDecoder
from workers.settings import WorkerSettings


def run(where: str) -> None:
    settings = WorkerSettings()
    log.configure("ERROR")
    stop = threading.Event()

    def reached(checkpoint: Checkpoint) -> None:
        if checkpoint == where:
            os.kill(os.getpid(), signal.SIGKILL)

    parts = wiring.build(settings, stop, version="test")
    loop = parts.connect(FakeDecoder(), None, embedder=WordEmbedder(), reached=reached)
    assert loop is not None
    while where != "drain" or parts.queue.backlog().entries > 0:
        loop.step()


if __name__ == "__main__":
    run(sys.argv[1])
