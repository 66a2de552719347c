"""The worker's end of the stream: claim, settle, reclaim, dead-letter.

Life of an entry: added by the sidecar -> delivered to one consumer (pending) -> settled (acknowledged and
deleted) once its row is committed. What a dead consumer left pending, or one gave up, is reclaimed after
``idle_ms``; past ``max_deliveries`` it goes to the dead-letter stream. Works on Redis 7.0 or newer, and on
Valkey, but not in cluster mode.
"""

import random
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import redis

from subtext_sidecar.contract import dead_letters, streams
from subtext_sidecar.contract.counters import Hop
from workers.consumer.outage import blame
from workers.errors import UnusableQueueError

_LEFT_LOOKED_AT = 64


class Entry(NamedTuple):
    """One stream entry as delivered to this consumer."""

    id: bytes  # "milliseconds-sequence"
    fields: dict[bytes, bytes]
    deliveries: int  # including this one
    is_suspect: bool = False  # handed out alone, because it may be what broke its worker


class Backlog(NamedTuple):
    """How much waits, by our own count: the server's group lag is undefined after deletions."""

    entries: int  # in the stream, pending included, since settling deletes
    pending: int
    oldest_age_seconds: float  # 0 when empty


class Batch(NamedTuple):
    """What one fetch brought."""

    entries: list[Entry]
    trimmed: int  # pending entries that the stream had lost; whoever trimmed them counted them


class Burial(NamedTuple):
    """What came of a dead letter."""

    lost: int  # as `Queue.settle`
    trimmed: int  # older letters that its stream had no room for


class Queue(Protocol):
    """Where the loop gets its entries from."""

    @property
    def stream(self) -> str:
        """Name of the stream: a bounded label, for one process reads few of them."""
        ...

    def fetch(self, count: int, block_ms: int, *, new_first: bool = False) -> Batch:
        """Return reclaimed entries or, up to ``count``, new ones; waits at most ``block_ms``.

        Raises UnusableQueueError.
        """
        ...

    def settle(self, ids: Sequence[bytes]) -> int:
        """Acknowledge and delete; a second call changes nothing.

        Returns how many of them the stream had lost meanwhile, though they were being worked on.
        """
        ...

    def dead_letter(self, entry: Entry, reason: str, error: str) -> Burial:
        """Move the entry to the dead-letter stream of its reason and settle it, in one step."""
        ...

    def dead_letter_fill(self) -> Mapping[tuple[str, str], float]:
        """Return how full each dead-letter stream is that has letters, by writer and reason; full at 1."""
        ...

    def keep_alive(self, ids: Sequence[bytes]) -> None:
        """Keep entries under way from being reclaimed."""
        ...

    def release(self, deliveries: Mapping[bytes, int]) -> None:
        """Give up those entries that are still ours, as delivered so often, to be reclaimed at once."""
        ...

    def reconnect(self) -> None:
        """Let go of connections that are not in use: the address may lead to another server now."""
        ...

    def backlog(self) -> Backlog:
        """Measure what waits."""
        ...

    def age_seconds(self, entry: Entry) -> float:
        """Return how long ago the entry was added, by the server's own clock."""
        ...

    def ping(self) -> None:
        """Raise redis.RedisError when the server is away or takes no writes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Names and limits."""

    stream: str
    group: str = streams.WORKER_GROUP
    idle_ms: int = 60_000  # a consumer silent for so long is taken for dead


class StreamQueue:
    """The queue on Redis or Valkey."""

    def __init__(self, client: redis.Redis, settings: QueueSettings) -> None:
        """``client`` must not decode responses. Nothing connects before the first call."""
        self._redis: Any = client
        self._settings = settings
        self.consumer = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._next_reclaim = 0.0
        self._is_server_known = False
        self._lock = threading.Lock()
        self._gone: set[bytes] = set()  # trimmed while they were ours, and pending no longer

    @property
    def stream(self) -> str:
        """See Queue."""
        return self._settings.stream

    def check_server(self) -> None:
        """Raise UnusableQueueError for a server in cluster mode; redis.RedisError when it is away."""
        try:
            is_cluster = int(self._redis.info("cluster").get("cluster_enabled", 0)) == 1
        except redis.ResponseError:
            is_cluster = False  # it may not be asked; then the first dead letter tells
        if is_cluster:
            raise UnusableQueueError(streams.CLUSTER_REFUSAL)
        self._is_server_known = True

    def fetch(self, count: int, block_ms: int, *, new_first: bool = False) -> Batch:
        """See Queue. Reclaims every half idle time, also when nothing new arrives."""
        try:
            if not self._is_server_known:
                self.check_server()
            if new_first and (entries := self._read_new(count, None)):
                return Batch(entries, 0)
            reclaimed, trimmed = self._reclaim_when_due(count, is_any=new_first)
            if reclaimed:
                return Batch(reclaimed, trimmed)
            return Batch(self._read_new(count, block_ms), trimmed)
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._create_group()
            return Batch([], 0)

    def settle(self, ids: Sequence[bytes]) -> int:
        """See Queue."""
        if not ids:
            return 0
        # Not XACKDEL, which newer servers have: it does not tell which entries had been trimmed.
        with self._lock, self._redis.pipeline(transaction=True) as transaction:
            return self._settle(transaction, ids)

    def dead_letter(self, entry: Entry, reason: str, error: str) -> Burial:
        """See Queue. The dead-letter stream is bounded; its oldest entries go first."""
        fields = {
            name: entry.fields.get(name, b"") for name in (streams.FIELD_HEADER, streams.FIELD_VECTOR)
        }
        fields |= {streams.FIELD_REASON: reason.encode(), streams.FIELD_ERROR: error.encode()[:2000]}
        dead_stream = dead_letters.stream_of(self._settings.stream, Hop.WORKER, reason)
        with self._lock, self._redis.pipeline(transaction=True) as transaction:
            transaction.xadd(dead_stream, fields)
            lost = self._settle(transaction, [entry.id])
        try:
            trimmed = self._trim(dead_stream)
        except redis.RedisError:
            trimmed = 0  # the letter is there, and the next one trims; raised, it would be added twice
        return Burial(lost, trimmed)

    def move(self, entry: Entry, stream: str) -> int:
        """Append the entry to another stream and settle it here, in one step.

        Returns how many were no longer in the stream: 1 when it was trimmed meanwhile.
        """
        with self._lock, self._redis.pipeline(transaction=True) as transaction:
            transaction.xadd(stream, entry.fields)
            return self._settle(transaction, [entry.id])

    def dead_letter_fill(self) -> dict[tuple[str, str], float]:
        """See Queue."""
        names = list(dead_letters.streams_of(self._settings.stream))
        with self._redis.pipeline(transaction=False) as pipeline:
            for *_, name in names:
                pipeline.exists(name)
            exist = pipeline.execute()
        return {
            (writer, reason): dead_letters.fill_ratio(*self._size(name))
            for (writer, reason, name), there in zip(names, exist, strict=True)
            if there
        }

    def _trim(self, dead_stream: str) -> int:
        entries, size_bytes = self._size(dead_stream)
        kept = dead_letters.entries_kept(entries, size_bytes)
        if kept == entries:
            return 0
        return int(self._redis.xtrim(dead_stream, maxlen=kept, approximate=False))

    def _size(self, dead_stream: str) -> tuple[int, int]:
        """Return entries and bytes; no bytes where the server does not let us ask."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xlen(dead_stream)
            pipeline.memory_usage(dead_stream, samples=0)
            entries, size_bytes = pipeline.execute(raise_on_error=False)
        if isinstance(entries, redis.RedisError):
            raise entries
        return entries, 0 if isinstance(size_bytes, redis.RedisError) else size_bytes or 0

    def keep_alive(self, ids: Sequence[bytes]) -> None:
        """See Queue. JUSTID leaves the delivery count alone."""
        if not ids:
            return
        oldest, newest = min(ids, key=_order), max(ids, key=_order)
        with self._lock:  # what is settled meanwhile would look as if it were gone
            held = self._pending(start=oldest, end=newest, count=len(ids), consumer=self.consumer)
            # Only those: claiming what another consumer took over would hand it to two at once.
            ours = {one["message_id"] for one in held} & set(ids)
            if ours:
                claimed = self._redis.xclaim(
                    self._settings.stream,
                    self._settings.group,
                    self.consumer,
                    min_idle_time=0,
                    message_ids=list(ours),
                    idle=0,
                    justid=True,
                )
                # XCLAIM takes what the stream has lost off the pending ones, so no XACK can tell of it.
                self._gone |= ours - set(claimed)

    def release(self, deliveries: Mapping[bytes, int]) -> None:
        """See Queue."""
        stream, group, idle_ms = self._settings.stream, self._settings.group, self._settings.idle_ms
        for id_, count in deliveries.items():
            if self._pending(start=id_, end=id_, count=1, consumer=self.consumer):
                self._redis.xclaim(
                    stream,
                    group,
                    self.consumer,
                    min_idle_time=0,
                    message_ids=[id_],
                    idle=idle_ms,
                    retrycount=count,
                    justid=True,
                )

    def reconnect(self) -> None:
        """See Queue. A server that became a replica refuses writes on a connection for ever."""
        self._redis.connection_pool.disconnect(inuse_connections=False)
        self._is_server_known = False

    def backlog(self) -> Backlog:
        """See Queue."""
        entries = int(self._redis.xlen(self._settings.stream))
        try:
            pending = int(self._redis.xpending(self._settings.stream, self._settings.group)["pending"])
        except redis.ResponseError:
            pending = 0
        oldest = self._redis.xrange(self._settings.stream, count=1)
        age = time.time() - int(oldest[0][0].split(b"-")[0]) / 1000 if oldest else 0.0
        return Backlog(entries, pending, max(age, 0.0))

    def age_seconds(self, entry: Entry) -> float:
        """See Queue."""
        seconds, microseconds = self._redis.time()
        added = int(entry.id.split(b"-")[0]) / 1000
        return max(0.0, int(seconds) + int(microseconds) / 1e6 - added)

    def ping(self) -> None:
        """See Queue. It acknowledges an entry that never was, because a replica answers a PING as well."""
        try:
            self._redis.xack(self._settings.stream, self._settings.group, "0-0")
        except redis.ReadOnlyError:
            self.reconnect()
            raise

    def _read_new(self, count: int, block_ms: int | None) -> list[Entry]:
        answer = self._redis.xreadgroup(
            self._settings.group, self.consumer, {self._settings.stream: ">"}, count=count, block=block_ms
        )
        return [Entry(id_, fields, 1) for id_, fields in _entries_of(answer)]

    def _reclaim_when_due(self, count: int, *, is_any: bool) -> tuple[list[Entry], int]:
        """Claim what a dead consumer left, from the oldest on: a batch at the second delivery, else one.

        With ``is_any`` from a random one on: the oldest may be what breaks every consumer.
        """
        if time.monotonic() < self._next_reclaim:
            return [], 0
        idle = self._pending(idle=self._settings.idle_ms, count=max(count, _LEFT_LOOKED_AT))
        if not idle:
            self._next_reclaim = time.monotonic() + self._settings.idle_ms / 2000
            self._reap_consumers()
            return [], 0
        at = random.randrange(len(idle)) if is_any else 0  # noqa: S311  # no secret
        left = {one["message_id"]: int(one["times_delivered"]) for one in idle[at:]}
        together = blame.taken_together(left, count)
        return self._claim({id_: left[id_] + 1 for id_ in together})

    def _claim(self, deliveries: Mapping[bytes, int]) -> tuple[list[Entry], int]:
        """Take over those that are idle still; return them, and how many the stream had lost.

        ``deliveries`` counts the one to come.
        """
        stream, group, idle_ms = self._settings.stream, self._settings.group, self._settings.idle_ms
        with self._redis.pipeline(transaction=True) as transaction:
            for id_ in deliveries:
                transaction.xpending_range(stream, group, min=id_, max=id_, count=1, idle=idle_ms)
            transaction.xclaim(
                stream, group, self.consumer, min_idle_time=idle_ms, message_ids=list(deliveries)
            )
            *looked_up, claimed = transaction.execute()
        fields = {id_: found for id_, found in claimed if found is not None}
        entries = [
            Entry(id_, fields[id_], count, blame.is_alone_next_time(count - 1))
            for id_, count in deliveries.items()
            if id_ in fields
        ]
        idle = {one["message_id"] for found in looked_up for one in found}
        return entries, len(idle - fields.keys())

    def _pending(
        self,
        *,
        count: int,
        start: bytes = b"-",
        end: bytes = b"+",
        idle: int | None = None,
        consumer: str | None = None,
    ) -> Any:
        return self._redis.xpending_range(
            self._settings.stream,
            self._settings.group,
            min=start,
            max=end,
            count=count,
            idle=idle,
            consumername=consumer,
        )

    def _reap_consumers(self) -> None:
        # Every restart leaves a consumer behind; one without pending entries is only a name.
        for consumer in self._redis.xinfo_consumers(self._settings.stream, self._settings.group):
            name, is_idle = consumer["name"], consumer["idle"] > 10 * self._settings.idle_ms
            if consumer["pending"] == 0 and is_idle and name != self.consumer.encode():
                self._redis.xgroup_delconsumer(self._settings.stream, self._settings.group, name)

    def _create_group(self) -> None:
        try:
            # From 0, not $: what was added before the first worker started must be read too.
            self._redis.xgroup_create(self._settings.stream, self._settings.group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _settle(self, transaction: Any, ids: Sequence[bytes]) -> int:
        """Run the transaction with their settling at its end; return how many the stream had lost."""
        transaction.xack(self._settings.stream, self._settings.group, *ids)
        transaction.xdel(self._settings.stream, *ids)
        acknowledged, deleted = map(int, transaction.execute()[-2:])
        gone = self._gone.intersection(ids)
        self._gone -= gone
        return max(0, acknowledged - deleted) + len(gone)


def _order(id_: bytes) -> tuple[int, ...]:
    """Return the place of an entry's id in its stream."""
    return tuple(map(int, id_.split(b"-")))


def _entries_of(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of XREADGROUP's answer, which differs between protocol 2 and 3."""
    if not answer:
        return []
    streams = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer]
    return [entry for entries in streams for entry in _flat(entries)]


def _flat(entries: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    if entries and isinstance(entries[0], list):
        entries = entries[0]
    return [(id_, fields) for id_, fields in entries]
