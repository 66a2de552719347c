"""SIGTERM ends a worker after its batch; a second one ends it at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from service.store.tables import Explanation
from tests.support import ROOT
from tests.support.waiting import pause, wait_until
from tests.support.worker import Bench, environment
from workers.settings import WorkerSettings


@pytest.fixture
def held_worker(worker_settings: WorkerSettings, bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """A worker process with one batch of four in its hands, and two more samples in the stream."""
    bench.add_samples(6)
    env = environment(worker_settings) | {"SUBTEXT_BATCH_ENTRIES": "4"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.workers.consumer.runner", "hold"],
        cwd=ROOT,
        env=os.environ | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "fetched\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_sigterm_finishes_the_batch_settles_it_and_exits_cleanly(
    held_worker: subprocess.Popen[str], bench: Bench
) -> None:
    held_worker.send_signal(signal.SIGTERM)
    _say_go_on(held_worker)

    assert held_worker.wait(timeout=30) == 0
    with bench.sessions() as session:
        assert session.execute(select(func.count()).select_from(Explanation)).scalar_one() == 4
    backlog = bench.parts.queue.backlog()
    assert (backlog.entries, backlog.pending) == (2, 0)


def test_a_second_sigterm_ends_the_worker_at_once_and_its_batch_stays_pending(
    held_worker: subprocess.Popen[str], bench: Bench
) -> None:
    # Signals that arrive together count as one, so: until it is gone. One alone would leave it held.
    def ask_again() -> None:
        held_worker.send_signal(signal.SIGTERM)
        pause()

    wait_until("its end", lambda: held_worker.poll() is not None, meanwhile=ask_again)

    assert held_worker.returncode == 128 + signal.SIGTERM
    assert bench.parts.queue.backlog().pending == 4


def _say_go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
