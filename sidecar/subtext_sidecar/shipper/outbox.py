"""What goes to Redis: entries of the buffer, dead letters and coverage; all wait while it is away."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final

from redis import RedisError

from subtext_sidecar.contract.counters import CounterName, SidecarCounter, Stratum
from subtext_sidecar.contract.record import CoverageCount, encode_coverage
from subtext_sidecar.contract.streams import COVERAGE_STREAM
from subtext_sidecar.local.ledger import Audited, Cell, Ledger, cell_of
from subtext_sidecar.log import NAME
from subtext_sidecar.shipper.buffer import Buffer, Entry
from subtext_sidecar.shipper.health import Health
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.queue import DeadLetter, RedisStream

_ENTRIES_PER_BATCH: Final = 256
_SHIP_SECONDS: Final = 1.0
_BACK_OFF_SECONDS: Final = 0.1
_BACK_OFF_MAX_SECONDS: Final = 2.0
_MAX_WAITING_LETTERS: Final = 256
_MAX_WAITING_COUNTS: Final = 5000


class Outbox:
    """Ships in batches, and after an error leaves Redis alone for a while. Never raises for Redis."""

    def __init__(
        self,
        *,
        stream: RedisStream,
        buffer: Buffer,
        ledger: Ledger,
        metrics: SidecarMetrics,
        health: Health,
    ) -> None:
        self._stream = stream
        self._buffer = buffer
        self._ledger = ledger
        self._metrics = metrics
        self._health = health
        self._log = logging.getLogger(NAME)
        self._letters: list[DeadLetter] = []
        self._counts: dict[tuple[str, Cell], CoverageCount] = {}
        self._under_way: list[Entry] = []  # the first ones in the buffer
        self._begin_seconds = 0.0
        self._back_off_seconds = 0.0
        self._retry_at = 0.0

    def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter until it is in Redis; past a bound, forget it."""
        if len(self._letters) < _MAX_WAITING_LETTERS:
            self._letters.append(letter)

    def keep(self, count: CoverageCount) -> None:
        """Keep the newest count of each cell until it is in Redis."""
        self._counts[count.source, cell_of(count)] = count
        while len(self._counts) > _MAX_WAITING_COUNTS:
            del self._counts[next(iter(self._counts))]

    def ship(self, minute: int, heard: Audited) -> None:
        """Write what the buffer holds, for a second at most: a slow Redis must not stop the loop.

        The last batch is still under way on return, so that Redis works while the caller takes the
        next rows; the next call settles it. Trimmed rows are counted for ``minute`` and ``heard``.
        """
        started = time.monotonic()
        while self._retry_at <= time.monotonic() < started + _SHIP_SECONDS:
            self._finish(minute, heard)
            self._begin()
            if len(self._buffer) <= _ENTRIES_PER_BATCH:
                return

    def _begin(self) -> None:
        entries = _of_one_stream(self._buffer.oldest(_ENTRIES_PER_BATCH))
        if not entries or time.monotonic() < self._retry_at:
            return
        started = time.monotonic()
        try:
            self._stream.begin(entries)
        except RedisError as error:
            self._redis_answered(entries[0].stream, error)
        else:
            self._under_way, self._begin_seconds = entries, time.monotonic() - started

    def _finish(self, minute: int, heard: Audited) -> None:
        if not self._under_way:
            return
        started = time.monotonic()
        shipped = self._stream.finish()
        self._metrics.ship_seconds.observe(self._begin_seconds + time.monotonic() - started)
        self._settle(self._under_way[: shipped.written], SidecarCounter.ROWS_SHIPPED)
        stream, self._under_way = self._under_way[0].stream, []
        if shipped.trimmed:
            cell = heard.cell(Stratum.UNKNOWN, minute)
            self._ledger.add(cell, SidecarCounter.DROPPED_TRIMMED, shipped.trimmed)
        self._redis_answered(stream, shipped.error)

    def give_up(self, minute: int, heard: Audited) -> None:
        """Drop and count what the buffer still holds; arguments as for ``ship``."""
        self._finish(minute, heard)
        self._settle(self._buffer.oldest(len(self._buffer)), SidecarCounter.DROPPED_REDIS_ERROR)

    def report(self) -> None:
        """Write dead letters and coverage, and refresh what the metrics show of the streams."""
        self._metrics.buffer_bytes.set(self._buffer.size_bytes)
        if time.monotonic() < self._retry_at:
            return
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("backlog", self._show_backlog),
            ("dead_letters", self._send_letters),
            (COVERAGE_STREAM, self._send_counts),
        )
        for stream, step in steps:
            try:
                step()
            except RedisError as error:
                self._redis_answered(stream, error)
                return
        self._redis_answered(COVERAGE_STREAM, None)

    def tell(self, reports: Sequence[CoverageCount]) -> bool:
        """Write what is run now, at once or not at all: it would not be true any more later."""
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._stream.report([encode_coverage(report) for report in reports])
        except RedisError as error:
            self._redis_answered(COVERAGE_STREAM, error)
            return False
        return True

    def _show_backlog(self) -> None:
        for name, entries in self._stream.backlog().items():
            self._metrics.backlog.labels(name).set(entries)

    def _send_letters(self) -> None:
        if self._letters:
            trimmed = self._stream.bury(self._letters)
            self._letters.clear()
            for (stream, reason), count in trimmed.items():
                self._metrics.dead_letters_trimmed.labels(stream, reason).inc(count)

    def _send_counts(self) -> None:
        if self._counts:
            self._stream.report([encode_coverage(count) for count in self._counts.values()])
            self._counts.clear()

    def _settle(self, entries: list[Entry], counter: CounterName) -> None:
        for cell, count in Counter(entry.cell for entry in entries).items():
            self._ledger.add(cell, counter, count)
        self._buffer.remove(len(entries))

    def _redis_answered(self, stream: str, error: RedisError | None) -> None:
        """Note whether Redis works; after an error leave it alone for a while."""
        self._health.is_redis_up = error is None
        self._metrics.redis_up.set(error is None)
        if error is None:
            self._back_off_seconds = 0.0
            return
        self._metrics.ship_errors.labels(stream).inc()
        # A server that became a replica refuses writes for as long as we keep the connection.
        self._stream.reconnect()
        if not self._back_off_seconds:
            fields = {"stream": stream, "error": f"{type(error).__name__}: {error}"}
            self._log.warning("redis_failed", extra={"fields": fields})
        self._back_off_seconds = min(
            max(_BACK_OFF_SECONDS, self._back_off_seconds * 2), _BACK_OFF_MAX_SECONDS
        )
        self._retry_at = time.monotonic() + self._back_off_seconds


def _of_one_stream(entries: list[Entry]) -> list[Entry]:
    """Return the first entries, as far as they go to the same stream."""
    return list(takewhile(lambda one: one.stream == entries[0].stream, entries))
