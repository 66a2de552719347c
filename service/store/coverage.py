"""What each hop counted, minute by minute: the denominators of every other answer."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.dialects.postgresql import insert
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """What one source counted of one thing in one minute, cumulatively within that minute."""

    minute: dt.datetime  # truncated to the minute, UTC
    source: str
    hop: str
    model: str
    counter: str
    count: int


def upsert_counts(session: Session, counts: Sequence[SourceCount]) -> None:
    """Keep the largest value of each count, so that redelivery and reordering change nothing."""
    largest: dict[tuple[object, ...], SourceCount] = {}
    for count in counts:
        # A source sends each count many times a minute; only the largest matters.
        key = (count.minute, count.source, count.hop, count.model, count.counter)
        if key not in largest or largest[key].count < count.count:
            largest[key] = count
    if not largest:
        return
    insertion = insert(CoverageMinute)
    session.execute(
        insertion.on_conflict_do_update(
            index_elements=["minute", "source", "hop", "model", "counter"],
            set_={"count": func.greatest(CoverageMinute.count, insertion.excluded.count)},
        ),
        # In one order everywhere, so that two workers cannot wait for each other.
        [asdict(largest[key]) for key in sorted(largest, key=str)],
    )
