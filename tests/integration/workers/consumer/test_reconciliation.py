"""The ledger of a real sidecar and a real worker balances while everything overflows and breaks."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from service import auth
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.store import keys
from service.store.engine import create_engine, session_factory, with_user
from subtext_sidecar.contract import record
from subtext_sidecar.contract.counters import Hop, PluginCounter, Stratum
from subtext_sidecar.local import ledger, wire
from subtext_sidecar.local.block import encode_block
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.policy import ScreenPolicy
from subtext_sidecar.local.policy_channel import PolicyPublisher
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.buffer import Buffer
from subtext_sidecar.shipper.health import Health
from subtext_sidecar.shipper.loop import Sidecar
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.policy_follower import PolicyFollower
from subtext_sidecar.shipper.queue import RedisStream
from subtext_sidecar.shipper.receiver import Receiver
from tests.support.records import block_header
from tests.support.waiting import wait_until
from tests.support.worker import D_MODEL, MODEL, Bench

PLUGIN = {str(counter): counter for counter in PluginCounter}
ROWS = 8  # in one block: requests of two rows each, every other one opted in
ROUNDS, BLOCKS = 12, 40


class Upstream:
    """A sidecar that may hold and ship little, and a plugin that drops a tenth of its rows."""

    def __init__(self, address: str, redis_url: str) -> None:
        self.counts = ledger.Ledger(source="plugin-test", hop=Hop.PLUGIN)
        self._rng = np.random.default_rng(0)
        registry = CollectorRegistry()
        metrics = SidecarMetrics(registry)
        screening = Screening(None, ScreenPolicy(baseline_rate=0.7), time.monotonic())
        self._receiver = Receiver(address)
        self._publisher = PolicyPublisher(self._receiver.context, address)
        self._stream = RedisStream(redis_url, max_stream_bytes=60_000)
        self.sidecar = Sidecar(
            receiver=self._receiver,
            stream=self._stream,
            buffer=Buffer(40_000),
            ledger=ledger.Ledger(source="sidecar-test", hop=Hop.SIDECAR),
            screening=screening,
            policies=PolicyFollower(
                file=None, publisher=self._publisher, screening=screening, metrics=metrics
            ),
            view=CaptureView(),
            metrics=metrics,
            health=Health(),
        )
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(address)

    def send_block(self, number: int, captured_at: float) -> None:
        """Sample eight rows and send them: some never leave, some arrive damaged."""
        requests = [f"request-{number}-{place}" for place in range(ROWS // 2)]
        strata = [Stratum.OPT_IN if place % 2 else Stratum.UNIFORM for place in range(ROWS // 2)]
        for stratum in strata:
            self._count(stratum, captured_at, requests_seen=1, requests_sampled=1, rows_sampled=2)
        self._count(Stratum.OPT_OUT, captured_at, requests_seen=1)
        outcome = "dropped_queue_full" if self._rng.random() < 0.1 else "rows_handed_over"
        for stratum in strata:
            self._count(stratum, captured_at, **{outcome: 2})
        if outcome != "rows_handed_over":
            return
        vectors = self._rng.standard_normal((ROWS, D_MODEL)).astype("<f4")
        if number % 7 == 0:
            vectors[3] = np.nan
        if number % 11 == 0:
            vectors[4] = 0.0  # finite, and nothing that a decoder could read
        header = encode_block(
            block_header(
                vectors.tobytes(),
                ROWS,
                model=MODEL,
                layer=1,
                captured_at=captured_at,
                request_id=requests,
                stratum=strata,
            )
        )
        damaged = vectors.tobytes()[:-1] if number % 13 == 0 else vectors.tobytes()
        self._socket.send_multipart([wire.BLOCK, header, damaged])

    def send_counts(self) -> None:
        for count in self.counts.take_changed():
            self._socket.send_multipart([wire.COVERAGE, record.encode_coverage(count)])

    def close(self) -> None:
        self._socket.close()
        self._context.term()
        self._publisher.close()
        self._receiver.close()
        self._stream.close()

    def _count(self, stratum: str, captured_at: float, **counts: int) -> None:
        for counter, count in counts.items():
            self.counts.add(ledger.Cell(MODEL, stratum, int(captured_at) // 60), PLUGIN[counter], count)


@pytest.fixture
def upstream(tmp_path: Path, redis_url: str) -> Iterator[Upstream]:
    made = Upstream(f"ipc://{tmp_path}/s.sock", redis_url)
    yield made
    made.close()


def report(bench: Bench) -> dict[str, Any]:
    """What REST answers."""
    secret = auth.new_secret()
    # The worker's own login makes no keys and reads none.
    owner = create_engine(with_user(bench.parts.settings.database, "postgres"))
    sessions = session_factory(owner)
    with sessions.begin() as session:
        keys.add_key(session, name="test", secret_sha256=auth.digest(secret), scopes=["admin"])
    resources = Resources(engine=owner, sessions=sessions, metrics=Metrics(CollectorRegistry()))
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7200))
    answer = TestClient(create_app(resources)).get(
        "/v1/coverage", params={"from": start}, headers={"X-API-Key": secret}
    )
    owner.dispose()
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def flood(upstream: Upstream, bench: Bench, dead: Bench) -> None:
    """Send an hour of traffic within seconds, while one worker dies and the other cannot keep up."""
    hour_ago = time.time() - 3600
    for turn in range(ROUNDS):
        for number in range(turn * BLOCKS, (turn + 1) * BLOCKS):
            upstream.send_block(number, hour_ago + 60 * turn + number / 10)
        while upstream.sidecar.step(0.2):
            pass
        bench.loop.step()
        if turn == ROUNDS // 2:
            dead.parts.queue.fetch(16, 100)
    upstream.send_block(-1, time.time())  # younger by far: what is older than this must be settled


def is_settled(balance: list[dict[str, Any]]) -> bool:
    """Tell whether every row has an outcome and every outcome was told."""
    return (
        bool(balance) and balance[0]["balanced"] and not any(hop["in_flight"] for hop in balance[0]["hops"])
    )


def balance_of(bench: Bench) -> list[dict[str, Any]]:
    balance: list[dict[str, Any]] = report(bench)["reconciliation"]
    return balance


def settle(upstream: Upstream, bench: Bench) -> None:
    upstream.send_counts()
    upstream.sidecar.step(0.2)
    bench.drain()

    def turn() -> None:
        upstream.sidecar.step(0.1)
        bench.loop.step()
        bench.parts.intake.step(block_ms=10)

    wait_until(
        lambda: f"settled: {balance_of(bench)}", lambda: is_settled(balance_of(bench)), 60, meanwhile=turn
    )


def test_overflow_damage_thinning_and_a_dead_worker_leave_no_row_unaccounted_for(
    upstream: Upstream, make_bench: Callable[..., Bench]
) -> None:
    bench, dead = make_bench(), make_bench()

    flood(upstream, bench, dead)
    settle(upstream, bench)

    told = report(bench)
    [balance] = told["reconciliation"]
    assert [(hop["hop"], hop["difference"], hop["in_flight"]) for hop in balance["hops"]] == [
        (hop, 0, 0) for hop in ("plugin", "socket", "sidecar", "stream", "worker")
    ]
    assert all(stratum["balanced"] for stratum in balance["strata"])
    lost: Counter[str] = Counter()
    for hop in balance["hops"]:
        lost.update(hop["rows_out"])
    assert lost["rows_decoded"] > 0
    for reason in (
        "dropped_queue_full",
        "thinned",
        "dropped_buffer_full",
        "dropped_invalid_bad_length",
        "dropped_invalid_not_finite",
        "dropped_trimmed",
        "dead_lettered_zero_vector",
    ):
        assert lost[reason] > 0, reason
    sampled = balance["hops"][0]["rows_in"]["rows_sampled"]
    assert sampled == (ROUNDS * BLOCKS + 1) * ROWS
    [model] = told["models"]
    assert model["rows_unsettled"] == 0
    assert {spot["code"]: spot["count"] for spot in told["blind_spots"]}["thinned"] == lost["thinned"]
