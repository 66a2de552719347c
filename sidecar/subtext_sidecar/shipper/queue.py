"""The Redis side of the sidecar: three streams, each written in one pipelined round trip.

``streams`` says what they hold and how much of it; activations are bounded by bytes, see bound_entries.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis import Redis, RedisError, ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from subtext_sidecar.contract.streams import (
    ACTIVATIONS_STREAM,
    CLUSTER_REFUSAL,
    COVERAGE_STREAM,
    DEAD_LETTER_STREAM,
    FIELD_ERROR,
    FIELD_HEADER,
    FIELD_REASON,
    FIELD_VECTOR,
    MAX_COVERAGE_ENTRIES,
    MAX_DEAD_LETTERS,
)
from subtext_sidecar.shipper.buffer import Entry

_ENTRY_OVERHEAD_BYTES: Final = 128  # ids, field names and node headers; 1.3% at 7 KB was measured
_SOCKET_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 1.0


_ACTIVATIONS: Final = ACTIVATIONS_STREAM.encode()


class UnusableQueueError(ValueError):
    """The server can never be used as it is; the message names the fix."""


class DeadLetter(NamedTuple):
    """A record that must not be used, and why."""

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


# XADD subtext:activations * h HEADER a VECTOR: what is the same for every entry is made once, so that
# packing one is a few references and, in the end, a single copy.
_XADD: Final = _command(b"XADD", _ACTIVATIONS, b"*", FIELD_HEADER).replace(b"*4", b"*7", 1)
_THEN_VECTOR: Final = b"\r\n$%d\r\n%b\r\n" % (len(FIELD_VECTOR), FIELD_VECTOR)


def _pack(entries: Sequence[Entry]) -> list[bytes]:
    parts: list[bytes] = []
    for entry in entries:
        parts += (
            _XADD,
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
        """Send the commands that append the entries and then trim; ``finish`` reads the answers.

        Until then Redis works and the caller may do something else. Only one batch may be under
        way. redis-py's own pipeline would wait, and spends twice as long on a command as sending
        it takes. Raises RedisError.
        """
        limit = bound_entries(self._max_stream_bytes, entries)
        trim = _command(b"XTRIM", _ACTIVATIONS, b"MAXLEN", b"~", b"%d" % limit)
        connection: Any = self._redis.connection_pool.get_connection()  # its methods have no types
        try:
            connection.send_packed_command([b"".join([*_pack(entries), trim])])
        except RedisError:
            self._redis.connection_pool.release(connection)
            raise
        self._under_way = _UnderWay(connection, len(entries))

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

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Append to the dead-letter stream; raises RedisError."""
        pipeline = self._redis.pipeline(transaction=False)
        for letter in letters:
            fields: dict[Any, Any] = {
                FIELD_HEADER: letter.header,
                FIELD_VECTOR: letter.vector,
                FIELD_REASON: letter.reason,
                FIELD_ERROR: letter.detail,
            }
            pipeline.xadd(DEAD_LETTER_STREAM, fields, maxlen=MAX_DEAD_LETTERS, approximate=True)
        pipeline.execute()

    def report(self, counts: Sequence[bytes]) -> None:
        """Append encoded coverage counts; raises RedisError."""
        pipeline = self._redis.pipeline(transaction=False)
        for count in counts:
            pipeline.xadd(
                COVERAGE_STREAM, {FIELD_HEADER: count}, maxlen=MAX_COVERAGE_ENTRIES, approximate=True
            )
        pipeline.execute()

    def backlog(self) -> dict[str, int]:
        """Return the entries in each stream; also the readiness check. Raises RedisError."""
        streams = (ACTIVATIONS_STREAM, DEAD_LETTER_STREAM, COVERAGE_STREAM)
        pipeline = self._redis.pipeline(transaction=False)
        for stream in streams:
            pipeline.xlen(stream)
        return dict(zip(streams, pipeline.execute(), strict=True))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
