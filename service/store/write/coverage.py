"""Write counts per minute. The caller commits."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.tables import CoverageMinute

_KEY: Final = ("minute", "source", "hop", "model", "stratum", "counter")
"""Within the tenant that the transaction is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """The value of one counter at one source in one minute."""

    minute: dt.datetime  # truncated to the minute, UTC
    source: str
    hop: str
    model: str
    stratum: str
    counter: str
    count: int

    @property
    def key(self) -> tuple[Any, ...]:
        """The primary key of the count's row, but for its tenant."""
        return tuple(getattr(self, name) for name in _KEY)


def upsert_counts(session: Session, counts: Sequence[SourceCount]) -> None:
    """Store each cumulative count's maximum, so redelivery and reordering change nothing."""
    largest: dict[tuple[Any, ...], SourceCount] = {}
    for count in counts:
        # A source sends each count many times a minute; only the largest matters.
        if count.key not in largest or largest[count.key].count < count.count:
            largest[count.key] = count
    insertion = insert(CoverageMinute)
    kept = func.greatest(CoverageMinute.count, insertion.excluded.count)
    _write(session, largest.values(), kept)


def add_counts(session: Session, counts: Sequence[SourceCount]) -> None:
    """Add the counts, whose keys must be distinct, to the stored values.

    Only for a source that counts in the same transaction as the work: that transaction commits once, so no
    count is added twice.
    """
    insertion = insert(CoverageMinute)
    _write(session, counts, CoverageMinute.count + insertion.excluded.count)


def _write(session: Session, counts: Iterable[SourceCount], kept: ColumnElement[int]) -> None:
    # Every worker writes rows in the same order, so that no two workers deadlock.
    rows = [asdict(count) for count in sorted(counts, key=lambda count: count.key)]
    if rows:
        session.execute(
            insert(CoverageMinute).on_conflict_do_update(
                index_elements=["tenant_id", *_KEY], set_={"count": kept}
            ),
            rows,
        )
