"""Recording and counting canaries' runs. Whoever records commits."""

import datetime as dt
import uuid
from dataclasses import asdict, dataclass
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.canary.tables import CanaryRun


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """One canary with what became of it."""

    model: str
    concept: str
    kind: str
    outcome: str
    lost_at: str | None


class Runs(NamedTuple):
    """How many canaries of one concept and kind had each result."""

    model: str
    concept: str
    kind: str
    flagged: int
    not_flagged: int
    lost: int


def add(session: Session, run: NewRun) -> None:
    """Store the run; the database says when it ended and whose it is."""
    session.execute(insert(CanaryRun).values(id=uuid.uuid4(), **asdict(run)))


def count(session: Session, start: dt.datetime, end: dt.datetime, model: str | None = None) -> list[Runs]:
    """Return the runs that ended from ``start`` (inclusive) to ``end``, by model, concept and kind."""
    key = (CanaryRun.model, CanaryRun.concept, CanaryRun.kind)
    results = [
        func.count().filter(CanaryRun.outcome == outcome) for outcome in ("flagged", "not_flagged", "lost")
    ]
    query = (
        select(*key, *results)
        .where(CanaryRun.ended_at >= start, CanaryRun.ended_at < end)
        .group_by(*key)
        .order_by(*key)
    )
    if model is not None:
        query = query.where(CanaryRun.model == model)
    return [Runs._make(row) for row in session.execute(query)]
