"""What each hop counted, minute by minute: the denominators of every other answer."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import BigInteger, ColumnElement, case, cast, false, func, literal_column, select
from sqlalchemy.orm import Session

from service.coverage.count import Count
from service.store.tables import CoverageMinute, Model
from subtext_sidecar.contract.counters import Hop, WorkerCounter

Step = Literal["minute", "hour", "day"]

# Rows reach the workers in the order of their capture, but what a dead worker held comes late.
_SETTLING = dt.timedelta(minutes=10)


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
