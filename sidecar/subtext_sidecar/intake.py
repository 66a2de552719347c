"""From a block off the socket to entries in the buffer, with every row accounted for."""

import logging
from collections import Counter
from typing import Final, NamedTuple

from subtext_sidecar.block import Block, BlockHeader, decode_block
from subtext_sidecar.buffer import Buffer, Entry
from subtext_sidecar.ledger import SECONDS_PER_MINUTE, Cell, Ledger
from subtext_sidecar.log import NAME
from subtext_sidecar.metrics import SidecarMetrics
from subtext_sidecar.outbox import Outbox
from subtext_sidecar.record import UNKNOWN, RecordError
from subtext_sidecar.rows import Rows, estimate, make_record, measure, not_finite, strata_of
from subtext_sidecar.screening import Screening
from subtext_sidecar.stream import DeadLetter

_PLAUSIBLE_MINUTES: Final = 24 * 60
_LETTER_HEADER_BYTES: Final = 4096
_LETTER_VECTOR_BYTES: Final = 4096  # enough to look at; a bad vector may be of any size

_Counts = Counter[tuple[str, str]]  # by stratum and counter


class _Kind(NamedTuple):
    """What a reference must fit."""

    model: str
    layer: int
    d_model: int


class Intake:
    """Checks, screens and thins blocks; what goes on waits in the buffer."""

    def __init__(
        self,
        *,
        buffer: Buffer,
        outbox: Outbox,
        ledger: Ledger,
        screening: Screening,
        metrics: SidecarMetrics,
    ) -> None:
        self._buffer = buffer
        self._outbox = outbox
        self._ledger = ledger
        self._screening = screening
        self._metrics = metrics
        self._log = logging.getLogger(NAME)
        self._unfit: set[_Kind] = set()

    def accept(self, header_bytes: bytes, vectors: bytes, minute: int, model: str) -> str:
        """Take one block; return its model. ``minute`` and ``model`` are for rows that tell none."""
        try:
            block = decode_block(header_bytes, vectors)
        except RecordError as error:
            self._refuse(header_bytes, vectors, error, Cell(model, UNKNOWN, minute))
            return model
        minute = _minute_of(block.header.captured_at, minute)
        rows, counts = measure(block), Counter[tuple[str, str]]()
        counts.update((stratum, "rows_received") for stratum in strata_of(block))
        for row in not_finite(rows):
            bad = RecordError("not_finite", "vector has NaN or infinite values")
            self._drop_row(header_bytes, block, row, bad, counts)
        self._screen(header_bytes, rows, minute, counts)
        for (stratum, counter), count in counts.items():
            self._ledger.add(Cell(block.header.model, stratum, minute), counter, count)
        return block.header.model

    def _screen(self, header_bytes: bytes, rows: Rows, minute: int, counts: _Counts) -> None:
        block = rows.block
        taken = self._screening.take(rows)
        counts.update(taken.counts)
        for verdict, count in taken.verdicts.items():
            self._metrics.screen_rows.labels(block.header.model, verdict).inc(count)
        if taken.verdicts["unscreened"]:
            self._tell_unfit(block.header)
        strata = strata_of(block)
        for kept in taken.kept:
            try:
                header, vector = make_record(rows, kept)
            except RecordError as error:
                self._drop_row(header_bytes, block, kept.row, error, counts)
                continue
            stratum = strata[kept.row]
            if not self._buffer.put(Entry(header, vector, Cell(block.header.model, stratum, minute))):
                counts[stratum, "dropped_buffer_full"] += 1

    def _drop_row(
        self, header_bytes: bytes, block: Block, row: int, error: RecordError, counts: _Counts
    ) -> None:
        counts[strata_of(block)[row], f"dropped_invalid_{error.reason}"] += 1
        self._bury(header_bytes, block.row_bytes(row), error)

    def _refuse(self, header_bytes: bytes, vectors: bytes, error: RecordError, known: Cell) -> None:
        """Count the rows of a block that must not be used, as far as they can still be told."""
        lost = estimate(header_bytes)
        minute = known.minute
        if lost.captured_at is not None:
            minute = _minute_of(lost.captured_at, minute)
        for stratum, count in lost.strata.items():
            cell = Cell(lost.model or known.model, stratum, minute)
            self._ledger.add(cell, "rows_received", count)
            self._ledger.add(cell, f"dropped_invalid_{error.reason}", count)
        self._bury(header_bytes, vectors, error)

    def _bury(self, header_bytes: bytes, vector: bytes, error: RecordError) -> None:
        self._metrics.dead_letters.labels(error.reason).inc()
        self._outbox.bury(
            DeadLetter(
                header_bytes[:_LETTER_HEADER_BYTES],
                vector[:_LETTER_VECTOR_BYTES],
                error.reason,
                str(error)[:500],
            )
        )

    def _tell_unfit(self, header: BlockHeader) -> None:
        """Say once that a reference was given and these rows are not what it is for."""
        kind = _Kind(header.model, header.layer, header.d_model)
        if self._screening.has_reference and kind not in self._unfit:
            self._unfit.add(kind)
            self._log.error("screen_does_not_fit", extra={"fields": kind._asdict()})


def _minute_of(captured_at: float, now_minute: int) -> int:
    """Return the minute of capture; a broken clock must not open counts for minutes that never were."""
    minute = int(captured_at // SECONDS_PER_MINUTE)
    return minute if abs(now_minute - minute) <= _PLAUSIBLE_MINUTES else now_minute
