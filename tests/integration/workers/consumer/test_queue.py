"""Who is handed which entries, and when, on a real Valkey."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from subtext_sidecar.contract import streams
from tests.support.waiting import pause, wait_until
from tests.support.worker import STREAM
from workers.consumer.lease import Lease
from workers.consumer.outage.progress import Progress
from workers.consumer.queue import Entry, QueueSettings, StreamQueue

IDLE_MS = 300
LONG_IDLE_MS = 60_000
COUNT = 8


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    one = redis.Redis.from_url(redis_url)
    yield one
    one.close()


def taken(client: redis.Redis, entries: int, idle_ms: int = IDLE_MS) -> tuple[StreamQueue, list[Entry]]:
    """A queue that holds so many new entries."""
    queue = StreamQueue(client, QueueSettings(stream=STREAM, idle_ms=idle_ms))
    queue.fetch(1, 10)  # makes the group
    for number in range(entries):
        client.xadd(STREAM, {streams.FIELD_HEADER: b"%d" % number})
    return queue, queue.fetch(entries, 100).entries


def reclaimed(queue: StreamQueue) -> list[list[Entry]]:
    """What is handed out of what was left, batch by batch; all of it is settled."""
    batches: list[list[Entry]] = []
    while entries := queue.fetch(COUNT, 10).entries:
        batches.append(entries)
        queue.settle([entry.id for entry in entries])
    return batches


def test_what_is_to_be_read_alone_never_comes_with_what_a_dead_worker_left(client: redis.Redis) -> None:
    dead, entries = taken(client, 6)
    # As hand_back and repeated deaths leave them: 0 after an outage, 1 once delivered, 3 a suspect.
    dead.release({entry.id: count for entry, count in zip(entries, (1, 0, 1, 3, 1, 0), strict=True)})

    batches = reclaimed(StreamQueue(client, QueueSettings(stream=STREAM, idle_ms=IDLE_MS)))

    numbers = [[int(entry.fields[streams.FIELD_HEADER]) for entry in batch] for batch in batches]
    assert numbers == [[0, 2, 4], [1], [3], [5]]
    assert [[entry.deliveries for entry in batch] for batch in batches] == [[2, 2, 2], [1], [4], [1]]
    assert [batch[0].is_suspect for batch in batches] == [False, True, True, True]


def test_what_the_stream_lost_of_a_dead_workers_entries_is_told(client: redis.Redis) -> None:
    dead, entries = taken(client, 3)
    dead.release(dict.fromkeys([entry.id for entry in entries], 1))
    client.xdel(STREAM, entries[1].id)

    batch = StreamQueue(client, QueueSettings(stream=STREAM, idle_ms=IDLE_MS)).fetch(COUNT, 10)

    assert [entry.id for entry in batch.entries] == [entries[0].id, entries[2].id]
    assert batch.trimmed == 1


def test_what_the_stream_lost_before_a_renewal_is_told_when_it_is_settled(client: redis.Redis) -> None:
    queue, entries = taken(client, 3)
    ids = [entry.id for entry in entries]
    client.xdel(STREAM, *ids[:2])
    queue.keep_alive(ids)
    queue.keep_alive(ids)

    assert queue.settle(ids) == 2
    assert queue.settle(ids) == 0


def test_keeping_alive_takes_nothing_back_from_who_took_it_over(client: redis.Redis) -> None:
    slow, entries = taken(client, 2)
    slow.release({entries[0].id: 1})
    other = StreamQueue(client, QueueSettings(stream=STREAM, idle_ms=IDLE_MS))
    [mine] = other.fetch(COUNT, 10).entries

    slow.keep_alive([entry.id for entry in entries])

    owners: Any = client.xpending_range(STREAM, streams.WORKER_GROUP, "-", "+", 10)
    assert {one["message_id"]: one["consumer"].decode() for one in owners} == {
        mine.id: other.consumer,
        entries[1].id: slow.consumer,
    }


def test_what_is_handed_back_is_there_for_others_at_once_and_stays_so(client: redis.Redis) -> None:
    queue, entries = taken(client, COUNT, LONG_IDLE_MS)
    lease = Lease(queue, Progress(60.0), renewal_seconds=0.001)
    over = threading.Event()

    def hold() -> None:
        with lease.held(entries):
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    lease.hand_back({entry.id: 1 for entry in entries})
    until = time.monotonic() + 0.2
    wait_until("renewals would have come", lambda: time.monotonic() > until, meanwhile=pause)
    over.set()
    holder.join()

    other = StreamQueue(client, QueueSettings(stream=STREAM, idle_ms=LONG_IDLE_MS))
    assert len(other.fetch(COUNT, 10).entries) == COUNT
