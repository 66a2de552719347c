"""What the store holds of a period that a policy's dry run is worked out from."""

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from service.policy.dry_run import Row
from service.store.configuration import read as configurations
from service.store.read.coverage import Range
from service.store.tables import CoverageMinute, Model, Sample
from subtext_sidecar.contract.configuration import Kind
from subtext_sidecar.contract.counters import Hop, PluginCounter, Stratum

_PROMPT: Final = "prompt_end"  # the reason of rows at the end of a prompt
MOST_REQUESTS: Final = 2000
"""Requests whose rows are read, the last of the period: more make no figure narrower that matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """One capture policy that some engine ran in the period."""

    digest: str
    content: dict[str, Any] | None
    began_at: dt.datetime
    until: dt.datetime


def count(session: Session, wanted: Range) -> dict[str, dict[str, int]]:
    """Return every counter of the model's period by stratum; it is of whole minutes."""
    total = cast(func.sum(CoverageMinute.count), BigInteger)
    query = (
        select(CoverageMinute.stratum, CoverageMinute.counter, total)
        .where(*_within(wanted))
        .group_by(CoverageMinute.stratum, CoverageMinute.counter)
    )
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for stratum, counter, number in session.execute(query):
        found[stratum][counter] = number
    return dict(found)


def busiest_minute(session: Session, wanted: Range) -> int:
    """Return how many requests came in the busiest minute."""
    of_minute = (
        select(func.sum(CoverageMinute.count).label("requests"))
        .where(
            *_within(wanted),
            CoverageMinute.hop == Hop.PLUGIN,
            CoverageMinute.counter == PluginCounter.REQUESTS_SEEN,
        )
        .group_by(CoverageMinute.minute)
        .subquery()
    )
    return int(session.execute(select(func.max(of_minute.c.requests))).scalar_one() or 0)


def _within(wanted: Range) -> tuple[Any, ...]:
    return (
        CoverageMinute.model == wanted.model,
        CoverageMinute.minute >= wanted.start,
        CoverageMinute.minute < wanted.end,
    )


def list_captures(session: Session, wanted: Range) -> list[list[Row]]:
    """Return the baseline's rows of the last requests of the uniform stratum, request by request."""
    is_wanted = (
        Sample.model_id == select(Model.id).where(Model.name == wanted.model).scalar_subquery(),
        Sample.captured_at >= wanted.start,
        Sample.captured_at < wanted.end,
        Sample.stratum == Stratum.UNIFORM,
        Sample.baseline_probability > 0,
        Sample.capture_id.is_not(None),
        # An engine that serves one half of a request takes half of its rows.
        Sample.role.is_(None),
    )
    last = (
        select(Sample.capture_id, Sample.layer)
        .where(*is_wanted)
        .group_by(Sample.capture_id, Sample.layer)
        .order_by(func.max(Sample.captured_at).desc(), Sample.capture_id)
        .limit(MOST_REQUESTS)
        .subquery()
    )
    query = (
        select(Sample.capture_id, Sample.layer, Sample.position, Sample.reason, Sample.baseline_probability)
        .join(last, (last.c.capture_id == Sample.capture_id) & (last.c.layer == Sample.layer))
        .where(*is_wanted)
        .order_by(Sample.capture_id, Sample.layer, Sample.position)
    )
    rows = session.execute(query).all()
    return [
        [
            Row(position=row.position, is_prompt=row.reason == _PROMPT, probability=row[4])
            for row in of_capture
        ]
        for _, of_capture in groupby(rows, itemgetter(0, 1))
    ]


def list_followed(session: Session, wanted: Range) -> list[Followed]:
    """Return the capture policies that engines of the model ran in the period, the oldest first."""
    found = configurations.list_in_force_within(session, wanted.start, wanted.end, wanted.model or "")
    return [
        Followed(
            digest=one.view.version.digest,
            content=one.view.content,
            began_at=one.period.began_at,
            until=one.period.ended_at or one.period.last_seen_at,
        )
        for one in found
        if one.period.kind == Kind.CAPTURE_POLICY
    ]
