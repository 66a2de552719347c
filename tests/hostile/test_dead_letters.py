"""What was set aside is kept for whoever looks at it: one flood pushes out no other evidence."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from subtext_sidecar.contract import dead_letters, streams
from subtext_sidecar.contract.counters import DeadLetterReason, Hop, RejectReason
from subtext_sidecar.shipper.queue import DeadLetter, RedisStream
from tests.support.letters import letters_of
from tests.support.worker import STREAM, Bench, make_record
from workers.consumer.queue import Entry, QueueSettings, StreamQueue

FLOOD = dead_letters.MAX_ENTRIES + 50
LARGE = bytes(dead_letters.MAX_BYTES // 8)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    one = redis.Redis.from_url(redis_url)
    yield one
    one.close()


@pytest.fixture
def sidecar(redis_url: str) -> Iterator[RedisStream]:
    stream = RedisStream(redis_url, max_stream_bytes=1 << 20)
    yield stream
    stream.close()


def buried(queue: StreamQueue, number: int, reason: str, vector: bytes = b"") -> int:
    """Dead-letter an entry; return how many letters were trimmed for it."""
    fields = {streams.FIELD_HEADER: b"%d" % number, streams.FIELD_VECTOR: vector}
    return queue.dead_letter(Entry(b"1-%d" % number, fields, 5), reason, "").trimmed


def test_a_flood_of_one_writer_and_reason_pushes_out_no_other_letter(
    client: redis.Redis, sidecar: RedisStream
) -> None:
    queue = StreamQueue(client, QueueSettings(stream=STREAM))
    buried(queue, 1, DeadLetterReason.DECODE_FAILED)
    buried(queue, 2, RejectReason.NOT_FINITE)

    trimmed = sidecar.bury([DeadLetter(STREAM, b"", b"", RejectReason.NOT_FINITE, "")] * FLOOD)
    trimmed_by_worker = sum(buried(queue, 10 + n, DeadLetterReason.WRONG_DECODER) for n in range(FLOOD))

    assert trimmed == {(STREAM, RejectReason.NOT_FINITE): 50}
    assert trimmed_by_worker == 50
    letters = letters_of(client, STREAM)
    assert len(letters) == 2 + 2 * dead_letters.MAX_ENTRIES
    assert {b"1", b"2"} <= {letter[streams.FIELD_HEADER] for letter in letters}


def test_a_stream_of_letters_is_bounded_by_bytes_and_keeps_the_newest(client: redis.Redis) -> None:
    queue = StreamQueue(client, QueueSettings(stream=STREAM))
    for number in range(1, 21):
        buried(queue, number, DeadLetterReason.DECODE_FAILED, LARGE)

    name = dead_letters.stream_of(STREAM, Hop.WORKER, DeadLetterReason.DECODE_FAILED)
    size: Any = client.memory_usage(name, samples=0)
    assert size <= dead_letters.MAX_BYTES
    kept = [int(letter[streams.FIELD_HEADER]) for letter in letters_of(client, STREAM)]
    assert kept == list(range(21 - len(kept), 21))
    assert len(kept) in {6, 7}


def test_letters_are_bounded_by_entries_where_the_server_tells_no_bytes(
    client: redis.Redis, redis_url: str
) -> None:
    client.acl_setuser(
        "shy", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-memory"]
    )
    shy = redis.Redis.from_url(redis_url, username="shy", password="x")
    queue = StreamQueue(shy, QueueSettings(stream=STREAM))

    trimmed = sum(buried(queue, n, DeadLetterReason.ZERO_VECTOR) for n in range(1, FLOOD + 1))

    assert trimmed == 50
    shy.close()


def test_the_metrics_tell_how_full_each_stream_of_letters_is_and_what_it_lost(
    make_bench: Callable[..., Bench], client: redis.Redis
) -> None:
    bench = make_bench()
    labels = {"stream": STREAM, "reason": str(RejectReason.BAD_CHECKSUM)}
    queue = StreamQueue(client, QueueSettings(stream=STREAM))
    for number in range(1, dead_letters.MAX_ENTRIES + 1):
        buried(queue, number, RejectReason.BAD_CHECKSUM)
    bench.add(*make_record(checksum=1))

    bench.drain()
    bench.parts.gauges.measure()

    assert bench.metric("subtext_dead_letter_fill_ratio", writer="worker", **labels) == 1
    assert bench.metric("subtext_dead_letters_trimmed_total", **labels) == 1
    for *_, name in dead_letters.streams_of(STREAM):
        client.delete(name)
    bench.parts.gauges.measure()
    assert bench.metric("subtext_dead_letter_fill_ratio", writer="worker", **labels) == 0
