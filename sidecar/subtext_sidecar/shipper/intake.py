"""From blocks off the socket to entries in the buffer, with every row accounted for."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from subtext_sidecar.contract.counters import INVALID, CounterName, RejectReason, SidecarCounter, Stratum
from subtext_sidecar.contract.record import MAX_HEADER_BYTES, RecordError
from subtext_sidecar.contract.streams import activations_stream
from subtext_sidecar.local.block import Block, decode_block
from subtext_sidecar.local.ledger import SECONDS_PER_MINUTE, Audited, Cell, Ledger
from subtext_sidecar.log import NAME
from subtext_sidecar.screen.screening import Screening
from subtext_sidecar.shipper.buffer import Buffer, Entry
from subtext_sidecar.shipper.metrics import SidecarMetrics
from subtext_sidecar.shipper.outbox import Outbox
from subtext_sidecar.shipper.queue import DeadLetter
from subtext_sidecar.shipper.rows import (
    KeptRow,
    Kind,
    Rows,
    estimate,
    kind_of,
    make_record,
    measure,
    not_finite,
    unscreened,
)

# Read off their class once, because every block comes by here.
_RECEIVED: Final = SidecarCounter.ROWS_RECEIVED
_BUFFER_FULL: Final = SidecarCounter.DROPPED_BUFFER_FULL
_ROWS_TOGETHER: Final = 128  # more of them cost no less each
_PLAUSIBLE_MINUTES: Final = 24 * 60
_UNKNOWN_STREAM: Final = activations_stream("unknown", 0)
_LETTER_HEADER_BYTES: Final = 4096
_LETTER_VECTOR_BYTES: Final = 4096  # enough to look at; a bad vector may be of any size

Frames = tuple[bytes, bytes]  # a block's header and vectors
_Counts = Counter[tuple[str, CounterName]]  # by stratum


class _Alike(NamedTuple):
    """What blocks have in common that are taken together."""

    kind: Kind
    minute: int  # of capture


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
        self._unfit: set[Kind] = set()
        self._stream = _UNKNOWN_STREAM  # of the rows that came last, or of the plugin that spoke first

    def expect(self, model: str, layer: int) -> None:
        """Note what the plugin captures: until rows have come, refused blocks are set aside as its."""
        if self._stream == _UNKNOWN_STREAM:
            self._stream = activations_stream(model, layer)

    def accept(self, messages: Iterable[Frames], minute: int, heard: Audited) -> Audited:
        """Take blocks in their order; return whose rows came last.

        ``minute`` and ``heard``, whose came last before, are for rows that tell nothing themselves.
        """
        for alike, blocks in _together(
            self._decoded(messages, heard.cell(Stratum.UNKNOWN, minute)), minute
        ):
            heard = Audited(alike.kind.model, alike.kind.tenant)
            self._take(measure(*blocks), alike.minute)
        return heard

    def _decoded(self, messages: Iterable[Frames], now: Cell) -> Iterator[Block]:
        for header, vectors in messages:
            try:
                yield decode_block(header, vectors)
            except RecordError as error:
                self._refuse(header, vectors, error, now)

    def _take(self, rows: Rows, minute: int) -> None:
        received = Counter([request.stratum for request in rows.requests])
        counts: _Counts = Counter({(stratum, _RECEIVED): count for stratum, count in received.items()})
        stream = self._stream = activations_stream(rows.kind.model, rows.kind.layer)
        for row in not_finite(rows):
            self._drop(
                rows,
                unscreened(rows, row),
                RejectReason.NOT_FINITE,
                "vector has NaN or infinite values",
                counts,
            )
        taken = self._screening.take(rows)
        counts.update(taken.counts)
        for verdict, count in taken.verdicts.items():
            self._metrics.screen_rows.labels(rows.kind.model, verdict).inc(count)
        if taken.verdicts["unscreened"]:
            self._tell_unfit(rows.kind)
        audited = Audited(rows.kind.model, rows.kind.tenant)
        cells = {stratum: audited.cell(stratum, minute) for stratum in received}
        put = self._buffer.put
        for kept in taken.kept:
            header, vector = make_record(rows, kept)
            size = len(header)
            stratum = rows.requests[kept.row].stratum
            if size > MAX_HEADER_BYTES:
                detail = f"header has {size} bytes, limit {MAX_HEADER_BYTES}"
                self._drop(rows, kept, RejectReason.OVERSIZED, detail, counts)
            elif not put(Entry(stream, header, vector, cells[stratum], size + len(vector))):
                counts[stratum, _BUFFER_FULL] += 1
        for (stratum, counter), count in counts.items():
            self._ledger.add(cells[stratum], counter, count)

    def _drop(self, rows: Rows, kept: KeptRow, reason: RejectReason, detail: str, counts: _Counts) -> None:
        counts[rows.requests[kept.row].stratum, INVALID[reason]] += 1
        self._bury(*make_record(rows, kept), RecordError(reason, detail))

    def _refuse(self, header: bytes, vectors: bytes, error: RecordError, now: Cell) -> None:
        """Count the rows of a block that must not be used, as far as they can still be told."""
        lost = estimate(header)
        minute = now.minute if lost.captured_at is None else _minute_of(lost.captured_at, now.minute)
        audited = Audited(lost.model or now.model, lost.tenant or now.tenant)
        for stratum, count in lost.strata.items():
            cell = audited.cell(stratum, minute)
            self._ledger.add(cell, _RECEIVED, count)
            self._ledger.add(cell, INVALID[error.reason], count)
        self._bury(header, vectors, error)

    def _bury(self, header: bytes, vector: bytes, error: RecordError) -> None:
        self._metrics.dead_letters.labels(error.reason).inc()
        self._outbox.bury(
            DeadLetter(
                self._stream,
                header[:_LETTER_HEADER_BYTES],
                vector[:_LETTER_VECTOR_BYTES],
                error.reason,
                str(error)[:500],
            )
        )

    def _tell_unfit(self, kind: Kind) -> None:
        """Say once that a reference was given and these rows are not what it is for."""
        if self._screening.reference is not None and kind not in self._unfit:
            self._unfit.add(kind)
            self._log.error("screen_does_not_fit", extra={"fields": kind._asdict()})


def _together(blocks: Iterable[Block], now_minute: int) -> Iterator[tuple[_Alike, list[Block]]]:
    """Yield neighbours that are alike, up to a number of rows that is good to work on at once."""
    alike: _Alike | None = None
    waiting: list[Block] = []
    rows = 0
    for block in blocks:
        next_alike = _Alike(kind_of(block), _minute_of(block.header.captured_at, now_minute))
        if alike is not None and (next_alike != alike or rows + len(block) > _ROWS_TOGETHER):
            yield alike, waiting
            waiting, rows = [], 0
        alike = next_alike
        waiting.append(block)
        rows += len(block)
    if alike is not None:
        yield alike, waiting


def _minute_of(captured_at: float, now_minute: int) -> int:
    """Return the minute of capture; a broken clock must not open counts for minutes that never were."""
    minute = int(captured_at // SECONDS_PER_MINUTE)
    return minute if abs(now_minute - minute) <= _PLAUSIBLE_MINUTES else now_minute
