"""What each hop counted, minute by minute: the denominators of every other answer."""

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    String,
    TableValuedAlias,
    and_,
    case,
    cast,
    column,
    false,
    func,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.orm import Session

from service.coverage.count import Count
from service.coverage.gaps import KEPT, MINUTE, Span, lives
from service.store.tables import CoverageMinute, Model
from subtext_sidecar.contract.counters import Hop, Stratum, WorkerCounter

Step = Literal["minute", "hour", "day"]

# Rows reach the workers in the order of their capture, but what a dead worker held comes late.
_SETTLING = dt.timedelta(minutes=10)

LENGTHS: Final[Mapping[Step, dt.timedelta]] = {
    "minute": dt.timedelta(minutes=1),
    "hour": dt.timedelta(hours=1),
    "day": dt.timedelta(days=1),
}


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

    The range is of whole steps. ``settled_before`` is as from `list_settled_before`.
    """
    columns = (CoverageMinute.hop, CoverageMinute.model, CoverageMinute.stratum, CoverageMinute.counter)
    total = func.sum(CoverageMinute.count)
    settled = func.coalesce(total.filter(_is_settled(settled_before)), 0)
    steps = _steps(wanted.start, wanted.end, LENGTHS[step])
    sums = select(
        *columns, cast(total, BigInteger).label("total"), cast(settled, BigInteger).label("settled")
    )
    if wanted.model is not None:
        sums = sums.where(CoverageMinute.model == wanted.model)
    of_step = sums.where(_is_within(steps, LENGTHS[step])).group_by(*columns).lateral()
    query = select(steps.c.start, *of_step.c).join_from(steps, of_step, true())
    key = (steps.c.start, of_step.c.hop, of_step.c.model, of_step.c.stratum, of_step.c.counter)
    return [Count(*row) for row in session.execute(query.order_by(*key))]


def _steps(start: dt.datetime, end: dt.datetime, length: dt.timedelta) -> TableValuedAlias:
    """Return the starts of the range's steps as a table.

    What is summed within each of them is found by an index. Grouped by step in one go, a year's millions
    of rows are sorted on disk, since the planner takes every minute for a group of its own.
    """
    # Of minutes, because a day of an interval has 23 hours once a year in many a session's time zone.
    minutes = func.make_interval(0, 0, 0, 0, 0, length // MINUTE)
    starts = func.generate_series(start, end - MINUTE, minutes)
    return starts.table_valued(column("start", DateTime(timezone=True)), name="steps").render_derived()


def _is_within(steps: TableValuedAlias, length: dt.timedelta) -> ColumnElement[bool]:
    end = steps.c.start + func.make_interval(0, 0, 0, 0, 0, length // MINUTE)
    return and_(CoverageMinute.minute >= steps.c.start, CoverageMinute.minute < end)


def _is_settled(settled_before: Mapping[str, dt.datetime]) -> ColumnElement[bool]:
    if not settled_before:
        return false()
    return CoverageMinute.minute < case(dict(settled_before), value=CoverageMinute.model)


_MINUTES_OF_DAY: Final = LENGTHS["day"] // MINUTE


class Heard(NamedTuple):
    """What plugins told of one model."""

    traffic: list[Span]
    """Minutes of the range with traffic, which canaries are not."""
    lived: list[Span]
    """Minutes in which some process would have told."""


def list_heard(session: Session, wanted: Range) -> dict[str, Heard]:
    """Return, by model, when plugins counted traffic, and when they would have; spans in any order.

    Lives reach up to `KEPT` out of the range: a count from further away tells nothing about it.
    """
    days = _steps(wanted.start - KEPT, wanted.end + KEPT, LENGTHS["day"])
    number = cast(func.extract("epoch", CoverageMinute.minute - days.c.start) / 60, Integer)
    # A bit a minute: a year may have a gap every other minute, and spans would be hundreds of thousands.
    minutes = func.bit_or(func.set_bit(literal_column(f"0::bit({_MINUTES_OF_DAY})"), number, 1))
    # Of minutes out of the range a life alone is told: a bit takes longer than what else is done for a row.
    is_asked = and_(CoverageMinute.minute >= wanted.start, CoverageMinute.minute < wanted.end)
    traffic = type_coerce(minutes.filter(CoverageMinute.stratum != Stratum.CANARY, is_asked), String)
    first, last = func.min(CoverageMinute.minute), func.max(CoverageMinute.minute)
    of_day = (
        select(
            CoverageMinute.model,
            CoverageMinute.source,
            first.label("first"),
            last.label("last"),
            traffic.label("traffic"),
        )
        .where(CoverageMinute.hop == Hop.PLUGIN, _is_within(days, LENGTHS["day"]))
        .group_by(CoverageMinute.model, CoverageMinute.source)
    )
    if wanted.model is not None:
        of_day = of_day.where(CoverageMinute.model == wanted.model)
    by_source = of_day.lateral()
    query = select(days.c.start, *by_source.c).join_from(days, by_source, true())
    found: defaultdict[str, Heard] = defaultdict(lambda: Heard([], []))
    counted: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
    for start, model, source, begin, end, bits in session.execute(query):
        counted[model, source].append(Span(begin, end + MINUTE))
        found[model].traffic.extend(
            Span(start + one.start() * MINUTE, start + one.end() * MINUTE)
            for one in re.finditer("1+", bits or "")
        )
    for (model, _), of_process in counted.items():
        found[model].lived.extend(lives(of_process))
    return dict(found)
