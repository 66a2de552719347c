"""The coverage ledger: cumulative counts by tenant, model, stratum and minute, for one process start.

Counts of one row all go to the minute in which it was captured, so that sums reconcile minute by
minute. A minute is handed out again after each change and, because a message may be lost on the
way, now and then without one: readers keep the largest value, so repeating is harmless.
"""

import secrets
import threading
from collections import Counter
from typing import Final, NamedTuple

from subtext_sidecar.contract.counters import CounterName, Hop
from subtext_sidecar.contract.record import VERSION, CoverageCount
from subtext_sidecar.contract.tenant import DEFAULT_TENANT

SECONDS_PER_MINUTE: Final = 60
_REPEAT_MINUTES: Final = 15
_KEEP_MINUTES: Final = 24 * 60


def new_source(hop: Hop) -> str:
    """Return a name that is unique for this process start."""
    return f"{hop}-{secrets.token_hex(8)}"


class Cell(NamedTuple):
    """What one set of counts is about."""

    model: str
    stratum: str  # a Stratum
    minute: int  # Unix time // 60
    tenant: str = DEFAULT_TENANT


class Audited(NamedTuple):
    """Which model is audited, and whose."""

    model: str
    tenant: str

    def cell(self, stratum: str, minute: int) -> Cell:
        """Return what counts of its rows are about."""
        return Cell(self.model, stratum, minute, self.tenant)


def cell_of(count: CoverageCount) -> Cell:
    """Return what a message's counts are about."""
    return Cell(count.model, count.stratum, count.minute, count.tenant)


class Ledger:
    """Counts what happened; safe to use from several threads."""

    def __init__(self, *, source: str, hop: Hop) -> None:
        self.source = source
        self._hop = hop
        self._lock = threading.Lock()
        self._minutes: dict[Cell, Counter[str]] = {}
        self._changed: set[Cell] = set()

    def add(self, cell: Cell, counter: CounterName, count: int = 1) -> None:
        """Count ``count`` more of ``counter``."""
        with self._lock:
            self._minutes.setdefault(cell, Counter())[counter] += count
            self._changed.add(cell)

    def known(self) -> list[CoverageCount]:
        """Return every minute that is kept, whether it was taken or not."""
        with self._lock:
            return [self._count(cell) for cell in self._minutes]

    def take_changed(self) -> list[CoverageCount]:
        """Return every minute that changed since it was last taken, oldest first."""
        with self._lock:
            cells = sorted(self._changed, key=lambda cell: cell.minute)
            self._changed.clear()
            return [self._count(cell) for cell in cells]

    def put_back(self, count: CoverageCount) -> None:
        """Say that a taken count could not be sent; it is taken again."""
        with self._lock:
            cell = cell_of(count)
            if cell in self._minutes:
                self._changed.add(cell)

    def repeat(self, now_minute: int) -> None:
        """Mark the last minutes as changed, and forget those too old to be asked for."""
        with self._lock:
            for cell in [cell for cell in self._minutes if cell.minute < now_minute - _KEEP_MINUTES]:
                del self._minutes[cell]
                self._changed.discard(cell)
            self._changed.update(
                cell for cell in self._minutes if cell.minute >= now_minute - _REPEAT_MINUTES
            )

    def _count(self, cell: Cell) -> CoverageCount:
        return CoverageCount(
            v=VERSION,
            source=self.source,
            hop=self._hop,
            model=cell.model,
            stratum=cell.stratum,
            minute=cell.minute,
            tenant=cell.tenant,
            counts=dict(self._minutes[cell]),
        )
