"""The sidecar's loop: receive, validate, buffer, ship, report.

Counts reconcile at every moment, per model, stratum and minute of capture: rows_received =
rows_shipped + dropped_invalid_* + dropped_buffer_full + dropped_redis_error + what is in the buffer.
dropped_trimmed counts rows that were shipped and then pushed out of the stream before a reader
settled them; Redis does not tell which, so they are of stratum "unknown".
"""

import logging
import time
from collections import Counter
from typing import Final

from redis import RedisError

from subtext_sidecar import wire
from subtext_sidecar.block import decode_block
from subtext_sidecar.buffer import Buffer, Entry
from subtext_sidecar.capture_view import CaptureView
from subtext_sidecar.health import Health
from subtext_sidecar.ledger import SECONDS_PER_MINUTE, Cell, Ledger
from subtext_sidecar.log import NAME
from subtext_sidecar.metrics import SidecarMetrics
from subtext_sidecar.receiver import Receiver
from subtext_sidecar.record import (
    ACTIVATIONS_STREAM,
    COVERAGE_STREAM,
    DEAD_LETTER_STREAM,
    UNKNOWN,
    CoverageCount,
    RecordError,
    decode_coverage,
    encode_coverage,
)
from subtext_sidecar.rows import Kept, estimate, make_record, measure, strata_of
from subtext_sidecar.stream import DeadLetter, RedisStream

_BLOCK_FRAMES: Final = 2  # after the kind
_MESSAGES_PER_STEP: Final = 64
_ENTRIES_PER_BATCH: Final = 256
_BEAT_SECONDS: Final = 2.0
_REPEAT_EVERY: Final = 15  # beats
_BACK_OFF_SECONDS: Final = 0.1
_BACK_OFF_MAX_SECONDS: Final = 2.0
_MAX_WAITING_LETTERS: Final = 256
_MAX_WAITING_COUNTS: Final = 5000
_LETTER_HEADER_BYTES: Final = 4096
_LETTER_VECTOR_BYTES: Final = 4096  # enough to look at; a bad vector may be of any size
_PLAUSIBLE_MINUTES: Final = 24 * 60
_UNKNOWN_MODEL: Final = "unknown"


class Sidecar:
    """Holds the loop's state; ``step`` is one turn and never raises for bad input or a dead Redis."""

    def __init__(
        self,
        *,
        receiver: Receiver,
        stream: RedisStream,
        buffer: Buffer,
        ledger: Ledger,
        view: CaptureView,
        metrics: SidecarMetrics,
        health: Health,
    ) -> None:
        self._receiver = receiver
        self._stream = stream
        self._buffer = buffer
        self._ledger = ledger
        self._view = view
        self._metrics = metrics
        self._health = health
        self._log = logging.getLogger(NAME)
        self._model = _UNKNOWN_MODEL
        self._reason = ""  # of the plugin's last status
        self._letters: list[DeadLetter] = []
        self._counts: dict[tuple[str, Cell], CoverageCount] = {}
        self._back_off_seconds = 0.0
        self._retry_at = 0.0
        self._beat_at = 0.0
        self._beats = 0

    def step(self, timeout_seconds: float) -> int:
        """Make one turn; wait at most ``timeout_seconds`` for messages. Returns how many came."""
        messages = self._receiver.receive(timeout_seconds, _MESSAGES_PER_STEP)
        minute = int(time.time()) // SECONDS_PER_MINUTE
        for message in messages:
            self._accept(message, minute)
        if time.monotonic() >= self._retry_at:
            self._ship(minute)
        if time.monotonic() >= self._beat_at:
            self._beat(minute)
        self._health.turn()
        return len(messages)

    def drain(self, deadline_seconds: float) -> None:
        """Take what is in the socket, ship what can be shipped in time, and account for the rest."""
        deadline = time.monotonic() + deadline_seconds
        while self.step(0.0) and time.monotonic() < deadline:
            continue
        while len(self._buffer) and time.monotonic() < deadline:
            self.step(0.05)
        minute = int(time.time()) // SECONDS_PER_MINUTE
        self._count(self._buffer.oldest(len(self._buffer)), "dropped_redis_error")
        self._buffer.remove(len(self._buffer))
        self._beat(minute)

    def _accept(self, message: list[bytes], minute: int) -> None:
        kind, *frames = message
        if kind == wire.BLOCK and len(frames) == _BLOCK_FRAMES:
            self._accept_block(frames[0], frames[1], minute)
        elif kind in {wire.STATUS, wire.COVERAGE} and len(frames) == 1:
            self._accept_report(kind, frames[0])
        else:
            self._metrics.invalid_messages.labels("unknown").inc()

    def _accept_block(self, header_bytes: bytes, vectors: bytes, minute: int) -> None:
        try:
            block = decode_block(header_bytes, vectors)
        except RecordError as error:
            self._refuse(header_bytes, vectors, error, minute)
            return
        self._model = block.header.model
        captured_minute = _minute_of(block.header.captured_at, minute)
        rows = measure(block)
        counts: Counter[tuple[str, str]] = Counter()
        for row, stratum in enumerate(strata_of(block)):
            counts[stratum, "rows_received"] += 1
            probability, reason = block.header.probability[row], block.header.reason[row]
            kept = Kept(row, probability, probability, reason, {})
            try:
                header, vector = make_record(rows, kept)
            except RecordError as error:
                counts[stratum, f"dropped_invalid_{error.reason}"] += 1
                self._bury(header_bytes, block.row_bytes(row), error)
                continue
            cell = Cell(block.header.model, stratum, captured_minute)
            if not self._buffer.put(Entry(header, vector, cell)):
                counts[stratum, "dropped_buffer_full"] += 1
        for (stratum, counter), count in counts.items():
            self._ledger.add(Cell(block.header.model, stratum, captured_minute), counter, count)

    def _refuse(self, header_bytes: bytes, vectors: bytes, error: RecordError, minute: int) -> None:
        """Count the rows of a block that must not be used, as far as they can still be told."""
        lost = estimate(header_bytes)
        if lost.captured_at is not None:
            minute = _minute_of(lost.captured_at, minute)
        for stratum, count in lost.strata.items():
            cell = Cell(lost.model or self._model, stratum, minute)
            self._ledger.add(cell, "rows_received", count)
            self._ledger.add(cell, f"dropped_invalid_{error.reason}", count)
        self._bury(header_bytes, vectors, error)

    def _bury(self, header_bytes: bytes, vector: bytes, error: RecordError) -> None:
        self._metrics.dead_letters.labels(error.reason).inc()
        if len(self._letters) < _MAX_WAITING_LETTERS:
            self._letters.append(_letter(header_bytes, vector, error))

    def _accept_report(self, kind: bytes, payload: bytes) -> None:
        try:
            if kind == wire.STATUS:
                self._hear(wire.decode_status(payload))
            else:
                count = decode_coverage(payload)
                self._view.update_coverage(count)
                self._keep(count)
        except RecordError as error:
            self._metrics.invalid_messages.labels("status" if kind == wire.STATUS else "coverage").inc()
            self._log.warning("report_invalid", extra={"fields": {"detail": str(error)}})

    def _hear(self, status: wire.CaptureStatus) -> None:
        self._model = status.model
        self._view.update_status(status, time.monotonic())
        if status.reason != self._reason:
            fields = {"source": status.source, "reason": status.reason, "detail": status.detail}
            self._log.info("capture_state_changed", extra={"fields": fields})
            self._reason = status.reason

    def _keep(self, count: CoverageCount) -> None:
        """Keep the newest count of each minute until it is in Redis."""
        self._counts[count.source, Cell(count.model, count.stratum, count.minute)] = count
        while len(self._counts) > _MAX_WAITING_COUNTS:
            del self._counts[next(iter(self._counts))]

    def _ship(self, minute: int) -> None:
        while entries := self._buffer.oldest(_ENTRIES_PER_BATCH):
            with self._metrics.ship_seconds.time():
                shipped = self._stream.ship(entries)
            self._count(entries[: shipped.written], "rows_shipped")
            self._buffer.remove(shipped.written)
            if shipped.trimmed:
                cell = Cell(self._model, UNKNOWN, minute)
                self._ledger.add(cell, "dropped_trimmed", shipped.trimmed)
            self._redis_answered(ACTIVATIONS_STREAM, shipped.error)
            if shipped.error is not None or len(entries) < _ENTRIES_PER_BATCH:
                return

    def _count(self, entries: list[Entry], counter: str) -> None:
        for cell, count in Counter(entry.cell for entry in entries).items():
            self._ledger.add(cell, counter, count)

    def _beat(self, minute: int) -> None:
        """Send dead letters and coverage, and refresh what the metrics show."""
        if self._beats % _REPEAT_EVERY == 0:
            self._ledger.repeat(minute)
        self._beats += 1
        self._beat_at = time.monotonic() + _BEAT_SECONDS
        for count in self._ledger.take_changed():
            self._view.update_coverage(count)
            self._keep(count)
        self._view.tick(time.monotonic(), minute)
        self._metrics.buffer_bytes.set(self._buffer.size_bytes)
        if time.monotonic() >= self._retry_at:
            self._report()

    def _report(self) -> None:
        stream = ACTIVATIONS_STREAM
        try:
            for name, entries in self._stream.backlog().items():
                self._metrics.backlog.labels(name).set(entries)
            stream = DEAD_LETTER_STREAM
            if self._letters:
                self._stream.bury(self._letters)
                self._letters.clear()
            stream = COVERAGE_STREAM
            if self._counts:
                self._stream.report([encode_coverage(count) for count in self._counts.values()])
                self._counts.clear()
        except RedisError as error:
            self._redis_answered(stream, error)
        else:
            self._redis_answered(stream, None)

    def _redis_answered(self, stream: str, error: RedisError | None) -> None:
        """Note whether Redis works; after an error leave it alone for a while."""
        self._health.is_redis_up = error is None
        self._metrics.redis_up.set(error is None)
        if error is None:
            self._back_off_seconds = 0.0
            return
        self._metrics.ship_errors.labels(stream).inc()
        if not self._back_off_seconds:
            fields = {"stream": stream, "error": f"{type(error).__name__}: {error}"}
            self._log.warning("redis_failed", extra={"fields": fields})
        self._back_off_seconds = min(
            max(_BACK_OFF_SECONDS, self._back_off_seconds * 2), _BACK_OFF_MAX_SECONDS
        )
        self._retry_at = time.monotonic() + self._back_off_seconds


def _minute_of(captured_at: float, now_minute: int) -> int:
    """Return the minute of capture; a broken clock must not open counts for minutes that never were."""
    minute = int(captured_at // SECONDS_PER_MINUTE)
    return minute if abs(now_minute - minute) <= _PLAUSIBLE_MINUTES else now_minute


def _letter(header: bytes, vector: bytes, error: RecordError) -> DeadLetter:
    return DeadLetter(
        header[:_LETTER_HEADER_BYTES], vector[:_LETTER_VECTOR_BYTES], error.reason, str(error)[:500]
    )
