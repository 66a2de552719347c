"""A decoder that breaks or hangs is an outage: no healthy row is given up, and the process ends."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, select

from service.store.tables import Explanation
from subtext_sidecar.contract import streams
from tests.support import ROOT
from tests.support.waiting import wait_until
from tests.support.worker import Bench, environment, make_record
from workers.consumer import serving
from workers.consumer.outage.known_vector import DecoderOutageError
from workers.nla.decoder import GivenFacts, Reading
from workers.nla.fake import FakeDecoder
from workers.settings import WorkerSettings

ROWS = 30
MAX_DELIVERIES = 5


def stored(bench: Bench) -> int:
    with bench.sessions() as session:
        return session.execute(select(func.count()).select_from(Explanation)).scalar_one()


def asked(bench: Bench, path: str) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{bench.parts.health.port}{path}"
    answer = httpx.get(url, trust_env=False, timeout=30)
    return answer.status_code, answer.json()


def drain_or_break(bench: Bench) -> bool:
    """Whether the stream was drained before the decoder broke."""
    try:
        bench.drain()
    except DecoderOutageError:
        return False
    return True


class DyingDecoder(FakeDecoder):
    """Reads so many times, then never again."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.left = reads

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().read(vectors, given)


class FragileDecoder(FakeDecoder):
    """Reads until it meets the vector of one position, and never again."""

    is_broken = False

    def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
        if self.is_broken or (vectors[:, 1] == ROWS // 2).any():
            self.is_broken = True
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().read(vectors, given)


@pytest.mark.parametrize("reads", [1, 3])  # the known vector, and so many batches
def test_a_decoder_that_breaks_in_every_process_costs_no_row_a_delivery(
    make_bench: Callable[..., Bench], reads: int
) -> None:
    lives = 2 * MAX_DELIVERIES
    for life in range(lives):
        broken = make_bench(DyingDecoder(reads), decoder_recovery_seconds=0.0)
        if life == 0:
            broken.add_samples(ROWS + lives * reads * broken.parts.settings.batch_entries)
            total = broken.parts.queue.backlog().entries
        assert not drain_or_break(broken)
        assert asked(broken, "/readyz")[0] == 503

    healthy = make_bench()
    healthy.drain()

    assert healthy.dead_letters() == []
    assert stored(healthy) == total


def test_a_row_that_breaks_every_decoder_is_given_up_in_the_end_and_it_alone(
    make_bench: Callable[..., Bench],
) -> None:
    make_bench().add_samples(ROWS)

    for _ in range(4 * MAX_DELIVERIES):
        bench = make_bench(FragileDecoder(), decoder_recovery_seconds=0.0)
        if drain_or_break(bench):
            break

    assert [letter[streams.FIELD_REASON] for letter in bench.dead_letters()] == [b"too_many_deliveries"]
    assert stored(bench) == ROWS - 1


def test_a_row_that_breaks_every_decoder_is_given_up_also_when_nothing_else_comes(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    bench.add(*make_record(position=ROWS // 2 - 1))
    lives = 0

    while bench.parts.queue.backlog().entries:
        lives += 1
        assert lives <= MAX_DELIVERIES + 1
        drain_or_break(make_bench(FragileDecoder(), decoder_recovery_seconds=0.0))

    assert [letter[streams.FIELD_REASON] for letter in bench.dead_letters()] == [b"too_many_deliveries"]


@pytest.mark.parametrize("reads", [1, 2, 3, 5])
def test_a_lone_healthy_row_outlives_any_number_of_decoders_that_break(
    make_bench: Callable[..., Bench], reads: int
) -> None:
    healthy = make_bench()
    healthy.add_samples(1)

    for _ in range(3 * MAX_DELIVERIES):
        if drain_or_break(make_bench(DyingDecoder(reads), decoder_recovery_seconds=0.0)):
            healthy.add_samples(1, captured_at=1.8e9, request_id=f"{reads}")
    healthy.drain()

    assert healthy.dead_letters() == []
    assert stored(healthy) >= 1


def test_a_decoder_that_is_itself_again_in_time_loses_nothing(make_bench: Callable[..., Bench]) -> None:
    class Recovering(DyingDecoder):
        def read(self, vectors: NDArray[np.float32], given: GivenFacts) -> list[Reading]:
            if self.left < -4:
                self.left = 1000
            return super().read(vectors, given)

    bench = make_bench(Recovering(2))
    bench.add_samples(ROWS)

    bench.drain()

    assert stored(bench) == ROWS
    assert bench.dead_letters() == []
    assert asked(bench, "/readyz")[0] == 200
    assert bench.metric("subtext_worker_failures_total", kind="DecoderOutageError") > 0


def test_the_process_is_not_ready_while_its_decoder_is_broken_and_then_ends(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(DyingDecoder(1), decoder_recovery_seconds=6.0)
    bench.add_samples(ROWS)
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(serving.serve(bench.parts, bench.loop)))
    thread.start()

    wait_until("it is not ready", lambda: asked(bench, "/readyz")[1]["checks"]["decoder"] == "failed", 30)
    assert asked(bench, "/healthz")[0] == 200
    thread.join(60)

    assert status == [1]
    assert bench.dead_letters() == []


@pytest.fixture
def hanging_worker(worker_settings: WorkerSettings, bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """A worker process whose decoder never answers for a real vector, with rows to read."""
    bench.add_samples(ROWS)
    env = environment(worker_settings) | {"SUBTEXT_BATCH_DEADLINE_SECONDS": "2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.workers.consumer.runner", "hang"],
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_a_decoder_that_hangs_fails_liveness_ends_the_process_and_costs_no_row_a_delivery(
    hanging_worker: subprocess.Popen[str], bench: Bench
) -> None:
    assert hanging_worker.stdout is not None
    assert hanging_worker.stderr is not None
    url = f"http://127.0.0.1:{int(hanging_worker.stdout.readline())}/healthz"

    wait_until("liveness fails", lambda: httpx.get(url, trust_env=False, timeout=30).status_code == 503, 30)
    assert hanging_worker.wait(timeout=60) == 3
    assert "in read" in hanging_worker.stderr.read()  # where it hung

    bench.drain()
    assert stored(bench) == ROWS
    assert bench.dead_letters() == []
    assert bench.metric("subtext_stream_redeliveries_total") == 0
