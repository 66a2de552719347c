"""Bury a whole day of explanations, which retention drops at once: no row of it is deleted by itself.

1. `read_day` finds the places of the day's entries, in a transaction of its own: a large day takes minutes,
   and a tombstone's transaction must be short, for the log bounds how long one may be.
2. `bury_day` adds the tombstone in the transaction that drops the day.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service.erasure.rows import Erased
from service.evidence.tombstones import Ranges, Reason, ranges_of
from service.store.erasure.bury import bury, find_places
from service.store.evidence.rows import explanation_row, list_matches
from service.store.tables import Explanation, Sample
from service.store.tenants import scope

_ROWS_AT_ONCE: Final = 1000
_DAY: Final = dt.timedelta(days=1)


class DayChangedError(RuntimeError):
    """Explanations of the day were stored or erased since it was read: read it again."""


class Day(NamedTuple):
    """What the log has of the explanations that a tenant's requests of one day got."""

    day: dt.date
    """UTC, of their capture."""
    leaves: Ranges
    explanations: int
    waiting: int
    """Explanations whose entries have no place yet; the day must not be buried before they have one."""


def read_day(session: Session, day: dt.date) -> Day:
    """Return the places of a day's entries, of the transaction's tenant. It must be READ COMMITTED."""
    tenant = scope.tenant_of(session)
    places: list[int] = []
    explanations = waiting = 0
    for part in _parts(session, tenant, day):
        matches = list_matches(session, [explanation for explanation, _ in part], tenant)
        rows = [explanation_row(one, sample, matches.get(one.id, ())) for one, sample in part]
        found = find_places(session, tenant, [one for row in rows for one in row.commitments])
        places += found.known.values()
        explanations += len(rows)
        waiting += len(found.waiting)
        session.expunge_all()  # or the whole day would be kept
    return Day(day, ranges_of(places), explanations, waiting)


def bury_day(session: Session, day: Day, *, authority: uuid.UUID) -> Erased:
    """Add the tombstone over a day's entries; the caller drops the day in the same transaction.

    Flags, incidents and tests of the day stay: they have classes of retention of their own. Raises
    DayChangedError when the day is not as it was read.
    """
    count = select(func.count()).where(*_of_day(scope.tenant_of(session), day.day))
    if session.scalar(count) != day.explanations or day.waiting:
        raise DayChangedError(f"{day.day}: there are other explanations than were read; read the day again")
    buried = bury(
        session,
        (place for first, behind in day.leaves for place in range(first, behind)),
        reason=Reason.RETENTION,
        authority=authority,
    )
    return Erased(explanations=day.explanations, log_entries=buried)


def _parts(session: Session, tenant: uuid.UUID, day: dt.date) -> Iterator[Any]:
    of_sample = (Sample.id == Explanation.sample_id) & (Sample.captured_at == Explanation.captured_at)
    query = select(Explanation, Sample).join(Sample, of_sample).where(*_of_day(tenant, day))
    found = session.execute(query.execution_options(yield_per=_ROWS_AT_ONCE, populate_existing=True))
    yield from found.partitions()


def _of_day(tenant: uuid.UUID, day: dt.date) -> tuple[ColumnElement[bool], ...]:
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    at = Explanation.captured_at
    return Explanation.tenant_id == tenant, at >= start, at < start + _DAY
