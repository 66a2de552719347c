"""The Redis side of the sidecar: its streams, each written in one pipelined round trip.

``streams`` says what they hold and how much of it; activations are bounded by bytes, see bound_entries.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from redis import Redis, RedisError, ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from subtext_sidecar.contract import dead_letters
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.streams import (
    ACTIVATIONS_PATTERN,
    CLUSTER_REFUSAL,
    COVERAGE_STREAM,
    FIELD_ERROR,
    FIELD_HEADER,
    FIELD_REASON,
    FIELD_VECTOR,
    MAX_COVERAGE_ENTRIES,
)
from subtext_sidecar.shipper.buffer import Entry

_ENTRY_OVERHEAD_BYTES: Final = 128  # ids, field names and node headers; 1.3% at 7 KB was measured
_SOCKET_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 1.0
_MOST_STREAMS_SHOWN: Final = 16  # a label of metrics
_LOOK_SECONDS: Final = 30.0  # between two looks at which streams there are


class UnusableQueueError(ValueError):
    """The server can never be used as it is; the message names the fix."""


class DeadLetter(NamedTuple):
    """A record that must not be used, and why."""

    stream: str  # where it was to go
    header: bytes
    vector: bytes
    reason: str
    detail: str


class ShipOutcome(NamedTuple):
    """Outcome of one batch: entries written, counted from the first, and entries trimmed away."""

    written: int
    trimmed: int
    error: RedisError | None


class _UnderWay(NamedTuple):
    connection: Any
    entries: int


def bound_entries(max_stream_bytes: int, entries: Sequence[Entry]) -> int:
    """Return how many entries of this batch's mean size fit into the stream's bound, at least 1."""
    mean_bytes = sum(entry.size for entry in entries) / len(entries) + _ENTRY_OVERHEAD_BYTES
    return max(1, int(max_stream_bytes / mean_bytes))


def _command(*parts: bytes) -> bytes:
    """Return a command in the Redis protocol."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


@lru_cache(maxsize=64)
def _xadd(stream: str) -> bytes:
    """Return the head of XADD STREAM * h HEADER a VECTOR.

    What is the same for every entry is made once, so that packing one is a few references and, in the
    end, a single copy.
    """
    return _command(b"XADD", stream.encode(), b"*", FIELD_HEADER).replace(b"*4", b"*7", 1)


_THEN_VECTOR: Final = b"\r\n$%d\r\n%b\r\n" % (len(FIELD_VECTOR), FIELD_VECTOR)


def _pack(entries: Sequence[Entry]) -> list[bytes]:
    parts: list[bytes] = []
    xadd = _xadd(entries[0].stream)
    for entry in entries:
        parts += (
            xadd,
            b"$%d\r\n" % len(entry.header),
            entry.header,
            _THEN_VECTOR,
            b"$%d\r\n" % len(entry.vector),
            entry.vector,
            b"\r\n",
        )
    return parts


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


class RedisStream:
    """Writes to Redis 7.0 or newer, or to Valkey. One attempt a call: the caller backs off."""

    def __init__(self, url: str, *, max_stream_bytes: int, password: str | None = None) -> None:
        """``password`` is for a URL that has none."""
        self._max_stream_bytes = max_stream_bytes
        self._redis: Redis = Redis.from_url(
            url,
            password=password,
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._under_way: _UnderWay | None = None
        self._shown: set[str] = set()  # streams of activations, written to by us or by others
        self._next_look = 0.0

    def check_server(self) -> None:
        """Raise UnusableQueueError for a server in cluster mode; RedisError when it is away."""
        try:
            answer: Any = self._redis.info("cluster")
        except ResponseError:
            return  # it may not be asked
        if int(answer.get("cluster_enabled", 0)):
            raise UnusableQueueError(CLUSTER_REFUSAL)

    def reconnect(self) -> None:
        """Let go of the connections: the address may lead to another server by now."""
        self._redis.connection_pool.disconnect()

    def begin(self, entries: Sequence[Entry]) -> None:
        """Send the commands that append entries of one stream and then trim; ``finish`` reads the answers.

        Until then Redis works and the caller may do something else. Only one batch may be under
        way. redis-py's own pipeline would wait, and spends twice as long on a command as sending
        it takes. Raises RedisError.
        """
        limit = bound_entries(self._max_stream_bytes, entries)
        trim = _command(b"XTRIM", entries[0].stream.encode(), b"MAXLEN", b"~", b"%d" % limit)
        connection: Any = self._redis.connection_pool.get_connection()  # its methods have no types
        try:
            connection.send_packed_command([b"".join([*_pack(entries), trim])])
        except RedisError:
            self._redis.connection_pool.release(connection)
            raise
        self._under_way = _UnderWay(connection, len(entries))
        if len(self._shown) < _MOST_STREAMS_SHOWN:
            self._shown.add(entries[0].stream)

    def finish(self) -> ShipOutcome:
        """Wait for what was begun.

        Trimming is a command of its own because its answer is the number of entries that were
        lost, which XADD's own MAXLEN does not tell. After an error the batch may be partly
        written; shipping it again only repeats records, which readers know by their identity.
        """
        if self._under_way is None:
            return ShipOutcome(0, 0, None)
        connection, count = self._under_way
        self._under_way = None
        try:
            answers = [_answer(connection) for _ in range(count + 1)]
        except RedisError as error:
            connection.disconnect()  # answers that were not read must not meet the next command
            return ShipOutcome(0, 0, error)
        finally:
            self._redis.connection_pool.release(connection)
        errors = [number for number, answer in enumerate(answers) if isinstance(answer, RedisError)]
        trimmed = 0 if isinstance(answers[-1], RedisError) else int(answers[-1])
        return ShipOutcome(min([*errors, count]), trimmed, answers[errors[0]] if errors else None)

    def bury(self, letters: Sequence[DeadLetter]) -> dict[tuple[str, str], int]:
        """Append each to the dead-letter stream of its reason and bound those; raises RedisError.

        Returns how many older letters there was no room for, by stream and reason.
        """
        names = {
            (letter.stream, letter.reason): dead_letters.stream_of(
                letter.stream, Hop.SIDECAR, letter.reason
            )
            for letter in letters
        }
        pipeline = self._redis.pipeline(transaction=False)
        for letter in letters:
            fields: dict[Any, Any] = {
                FIELD_HEADER: letter.header,
                FIELD_VECTOR: letter.vector,
                FIELD_REASON: letter.reason,
                FIELD_ERROR: letter.detail,
            }
            pipeline.xadd(names[letter.stream, letter.reason], fields)
        pipeline.execute()
        return {kind: self._trim(name) for kind, name in names.items()}

    def _trim(self, dead_stream: str) -> int:
        """Bound a dead-letter stream, by entries alone where the server tells no bytes; raises nothing.

        The letters are there already, and the next ones trim: raised, an error would add them twice.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xlen(dead_stream)
        pipeline.memory_usage(dead_stream, samples=0)
        try:
            entries, size_bytes = pipeline.execute(raise_on_error=False)
            if isinstance(entries, RedisError):
                return 0
            size = 0 if isinstance(size_bytes, RedisError) else size_bytes or 0
            kept = dead_letters.entries_kept(entries, size)
            if kept == entries:
                return 0
            trimmed: Any = self._redis.xtrim(dead_stream, maxlen=kept, approximate=False)
            return int(trimmed)
        except RedisError:
            return 0

    def report(self, counts: Sequence[bytes]) -> None:
        """Append encoded coverage counts; raises RedisError."""
        pipeline = self._redis.pipeline(transaction=False)
        for count in counts:
            pipeline.xadd(
                COVERAGE_STREAM, {FIELD_HEADER: count}, maxlen=MAX_COVERAGE_ENTRIES, approximate=True
            )
        pipeline.execute()

    def backlog(self) -> dict[str, int]:
        """Return the entries in each stream of ours; also the readiness check. Raises RedisError.

        Streams that another sidecar or a worker writes to count too: somebody has to show those that no
        worker reads.
        """
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            for name in self._redis.scan_iter(match=ACTIVATIONS_PATTERN, count=1000):
                if len(self._shown) < _MOST_STREAMS_SHOWN:
                    self._shown.add(name.decode(errors="replace") if isinstance(name, bytes) else name)
        streams = (*sorted(self._shown), COVERAGE_STREAM)
        pipeline = self._redis.pipeline(transaction=False)
        for stream in streams:
            pipeline.xlen(stream)
        return dict(zip(streams, pipeline.execute(), strict=True))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
