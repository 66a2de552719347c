"""Counts as their sources send them: cumulative, minute by minute. The caller commits."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.tables import CoverageMinute

_KEY: Final = ("minute", "source", "hop", "model", "stratum", "counter")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """What one source counted of one thing in one minute."""

    minute: dt.datetime  # truncated to the minute, UTC
    source: str
    hop: str
    model: str
    stratum: str
    counter: str
    count: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies the count; one source never uses it for two things."""
        return tuple(getattr(self, name) for name in _KEY)


def upsert_counts(session: Session, counts: Sequence[SourceCount]) -> None:
    """Keep the largest value of each cumulative count: redelivery and reordering change nothing."""
    largest: dict[tuple[Any, ...], SourceCount] = {}
    for count in counts:
        # A source sends each count many times a minute; only the largest matters.
        if count.key not in largest or largest[count.key].count < count.count:
            largest[count.key] = count
    insertion = insert(CoverageMinute)
    kept = func.greatest(CoverageMinute.count, insertion.excluded.count)
    _write(session, largest.values(), kept)


def add_counts(session: Session, counts: Sequence[SourceCount]) -> None:
    """Add to what is stored; each count must differ from the others in its key.

    For a source that counts in the very transaction that does what it counts: that transaction
    commits once, so nothing has to be told apart from its repetition.
    """
    insertion = insert(CoverageMinute)
    _write(session, counts, CoverageMinute.count + insertion.excluded.count)


def _write(session: Session, counts: Iterable[SourceCount], kept: ColumnElement[int]) -> None:
    # In one order everywhere, so that two workers cannot wait for each other.
    rows = [asdict(count) for count in sorted(counts, key=lambda count: count.key)]
    if rows:
        session.execute(
            insert(CoverageMinute).on_conflict_do_update(index_elements=list(_KEY), set_={"count": kept}),
            rows,
        )
