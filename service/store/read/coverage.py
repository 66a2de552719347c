"""What each hop counted, minute by minute: the denominators of every other answer."""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import BigInteger, ColumnElement, Select, case, cast, false, func, literal_column, select
from sqlalchemy.orm import Session

from service.coverage.count import Count
from service.coverage.gaps import MINUTE, Span
from service.store.tables import CoverageMinute, Model
from subtext_sidecar.contract.counters import Hop, Stratum, WorkerCounter

Step = Literal["minute", "hour", "day"]

# Rows reach the workers in the order of their capture, but what a dead worker held comes late.
_SETTLING = dt.timedelta(minutes=10)

LIVES_MARGIN: Final = dt.timedelta(days=7)
"""How far outside a range a process that says nothing within it may have counted, to be known as alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Minutes from ``start`` (inclusive) to ``end`` (exclusive), of one model or of all."""

    start: dt.datetime
    end: dt.datetime
    model: str | None = None


def list_settled_before(session: Session, model: str | None = None) -> dict[str, dt.datetime]:
    """Return, by model, the minute before which every row should have reached a worker.

    It follows from what workers took up and not from the clock: a row may wait in the stream for
    hours. A model of which no worker took up anything is missing.
    """
    newest = (
        select(func.max(CoverageMinute.minute))
        # Literals, so that the planner can tell that the partial index serves.
        .where(
            CoverageMinute.model == Model.name,
            CoverageMinute.hop == literal_column(f"'{Hop.WORKER}'"),
            CoverageMinute.counter == literal_column(f"'{WorkerCounter.ROWS_CONSUMED}'"),
        )
        .scalar_subquery()
    )
    query = select(Model.name, newest)
    if model is not None:
        query = query.where(Model.name == model)
    return {name: minute - _SETTLING for name, minute in session.execute(query) if minute is not None}


def list_counts(
    session: Session, wanted: Range, step: Step, settled_before: Mapping[str, dt.datetime]
) -> Sequence[Count]:
    """Return every counter summed over sources and within each UTC minute, hour or day, oldest first.

    ``settled_before`` is as from `list_settled_before`.
    """
    start = func.date_trunc(step, CoverageMinute.minute, "UTC").label("start")
    columns = (CoverageMinute.hop, CoverageMinute.model, CoverageMinute.stratum, CoverageMinute.counter)
    total = func.sum(CoverageMinute.count)
    settled = func.coalesce(total.filter(_is_settled(settled_before)), 0)
    query = (
        select(start, *columns, cast(total, BigInteger), cast(settled, BigInteger))
        .where(CoverageMinute.minute >= wanted.start, CoverageMinute.minute < wanted.end)
        .group_by(start, *columns)
        .order_by(start, *columns)
    )
    if wanted.model is not None:
        query = query.where(CoverageMinute.model == wanted.model)
    return [Count(*row) for row in session.execute(query)]


def _is_settled(settled_before: Mapping[str, dt.datetime]) -> ColumnElement[bool]:
    if not settled_before:
        return false()
    return CoverageMinute.minute < case(dict(settled_before), value=CoverageMinute.model)


def list_traffic(session: Session, wanted: Range) -> dict[str, list[Span]]:
    """Return, by model, the minutes in which a plugin counted traffic, those in a row as one span.

    Canaries are no traffic.
    """
    minutes = (
        _plugin_minutes(wanted.model, CoverageMinute.model, CoverageMinute.minute)
        .where(
            CoverageMinute.stratum != Stratum.CANARY,
            CoverageMinute.minute >= wanted.start,
            CoverageMinute.minute < wanted.end,
        )
        .distinct()
        .subquery()
    )
    # Minutes in a row have the same difference to their number.
    number = func.row_number().over(partition_by=minutes.c.model, order_by=minutes.c.minute)
    first = (minutes.c.minute - number * MINUTE).label("first")
    numbered = select(minutes.c.model, minutes.c.minute, first).subquery()
    start, last = func.min(numbered.c.minute), func.max(numbered.c.minute)
    query = select(numbered.c.model, start, last).group_by(numbered.c.model, numbered.c.first)
    found: dict[str, list[Span]] = defaultdict(list)
    for model, begin, end in session.execute(query.order_by(numbered.c.model, start)):
        found[model].append(Span(begin, end + MINUTE))
    return found


def list_lives(session: Session, wanted: Range) -> dict[str, list[Span]]:
    """Return, by model, from when to when each plugin process counted anything, canaries too.

    A count up to `LIVES_MARGIN` outside the range is found.
    """
    first, last = func.min(CoverageMinute.minute), func.max(CoverageMinute.minute)
    query = (
        _plugin_minutes(wanted.model, CoverageMinute.model, first, last)
        .where(
            CoverageMinute.minute >= wanted.start - LIVES_MARGIN,
            CoverageMinute.minute < wanted.end + LIVES_MARGIN,
        )
        .group_by(CoverageMinute.model, CoverageMinute.source)
    )
    found: dict[str, list[Span]] = defaultdict(list)
    for model, begin, end in session.execute(query):
        found[model].append(Span(begin, end + MINUTE))
    return found


def _plugin_minutes(model: str | None, *columns: Any) -> Select[Any]:
    query = select(*columns).where(CoverageMinute.hop == Hop.PLUGIN)
    return query if model is None else query.where(CoverageMinute.model == model)
