"""Sidecar and workers write one dead-letter stream: neither may delete what the other put there."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from subtext_sidecar.contract import streams
from subtext_sidecar.shipper.queue import DeadLetter, RedisStream
from workers.consumer.queue import Entry, QueueSettings, StreamQueue

WORKER_LETTERS = 2000


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


def test_a_letter_of_the_sidecar_leaves_the_letters_of_workers_alone(
    client: redis.Redis, sidecar: RedisStream
) -> None:
    queue = StreamQueue(client, QueueSettings())
    for number in range(WORKER_LETTERS):
        queue.dead_letter(Entry(b"1-%d" % number, {streams.FIELD_HEADER: b"%d" % number}, 5), "poison", "")

    sidecar.bury([DeadLetter(b"", b"", "not_finite", "one value is NaN")])

    letters: Any = client.xrange(streams.DEAD_LETTER_STREAM)
    assert [fields[streams.FIELD_HEADER] for _, fields in letters[:-1]] == [
        b"%d" % number for number in range(WORKER_LETTERS)
    ]
    assert letters[-1][1][streams.FIELD_REASON] == b"not_finite"


def test_the_letters_stay_bounded_whoever_writes_them(client: redis.Redis, sidecar: RedisStream) -> None:
    letter = DeadLetter(b"", b"", "not_finite", "")
    for _ in range(11):
        sidecar.bury([letter] * (streams.MAX_DEAD_LETTERS // 10))

    StreamQueue(client, QueueSettings()).dead_letter(Entry(b"1-1", {}, 5), "poison", "")

    kept = client.xlen(streams.DEAD_LETTER_STREAM)
    assert isinstance(kept, int)
    assert streams.MAX_DEAD_LETTERS <= kept < streams.MAX_DEAD_LETTERS * 1.05
