"""What each hop counted, minute by minute: the denominators of every other answer."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from service.store.tables import CoverageMinute

Step = Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Minutes from ``start`` (inclusive) to ``end`` (exclusive), of one model or of all."""

    start: dt.datetime
    end: dt.datetime
    model: str | None = None


class Count(NamedTuple):
    """The sum of one counter over all sources within one step."""

    start: dt.datetime  # of the step
    hop: str
    model: str
    counter: str
    value: int


def list_counts(session: Session, wanted: Range, step: Step) -> Sequence[Count]:
    """Return every counter summed over sources and within each UTC minute, hour or day, oldest first.

    A row holds the largest cumulative value that its source reported in its minute, so the sum
    over sources and minutes is what was counted.
    """
    start = func.date_trunc(step, CoverageMinute.minute, "UTC").label("start")
    columns = (CoverageMinute.hop, CoverageMinute.model, CoverageMinute.counter)
    query = (
        select(start, *columns, cast(func.sum(CoverageMinute.count), BigInteger))
        .where(CoverageMinute.minute >= wanted.start, CoverageMinute.minute < wanted.end)
        .group_by(start, *columns)
        .order_by(start, *columns)
    )
    if wanted.model is not None:
        query = query.where(CoverageMinute.model == wanted.model)
    return [Count(*row) for row in session.execute(query)]
