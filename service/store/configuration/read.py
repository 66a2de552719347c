"""Reading what was in force at a time, and when that changed."""

import datetime as dt
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.selectable import Subquery

from service.store.configuration.period import HOLDS
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.read.page import Page, Position
from service.store.tables import Model
from service.store.tenants.scope import OF_ALL_MODELS

Event = Literal["began", "ended", "lost"]


class VersionView(NamedTuple):
    """A version, and what it holds where that is known."""

    version: ConfigurationVersion
    content: dict[str, Any] | None


class InForce(NamedTuple):
    """One process and the version that it ran."""

    period: ConfigurationPeriod
    view: VersionView


class Change(NamedTuple):
    """One event of the timeline."""

    id: uuid.UUID
    at: dt.datetime
    event: Event
    changes_versions: bool
    """No other process ran the version right before it began, or right after it ended."""
    period: ConfigurationPeriod
    version: ConfigurationVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events to list; None means any."""

    model: str | None = None
    kind: str | None = None
    start: dt.datetime | None = None  # inclusive
    end: dt.datetime | None = None  # exclusive
    every_process: bool = False  # also those of which no version came or went


def now(session: Session) -> dt.datetime:
    """Return the database's time, which all periods are in."""
    return session.execute(select(func.now())).scalar_one()


def list_models(session: Session) -> list[str]:
    """Return every model that some worker has read, by name."""
    return list(session.scalars(select(Model.name).order_by(Model.name)))


def list_in_force(session: Session, at: dt.datetime, model: str | None = None) -> list[InForce]:
    """Return every process that ran something at a time, by model, kind and begin."""
    row = ConfigurationPeriod
    until = or_(row.ended_at.is_(None), row.ended_at > at)
    # The last report stands for a while, and an end for itself.
    return _list_periods(session, model, row.began_at <= at, row.last_seen_at >= at - HOLDS, until)


def list_in_force_within(
    session: Session, start: dt.datetime, end: dt.datetime, model: str
) -> list[InForce]:
    """Return every process that ran something for the model between two times, if only for a moment."""
    row = ConfigurationPeriod
    until = or_(row.ended_at.is_(None), row.ended_at > start)
    return _list_periods(session, model, row.began_at < end, row.last_seen_at >= start - HOLDS, until)


def _list_periods(session: Session, model: str | None, *conditions: ColumnElement[bool]) -> list[InForce]:
    row = ConfigurationPeriod
    query = (
        select(row, ConfigurationVersion, ConfigurationContent.content)
        .join(ConfigurationVersion, ConfigurationVersion.id == row.version_id)
        .outerjoin(ConfigurationContent, ConfigurationContent.version_id == row.version_id)
        .where(*conditions)
        .order_by(row.model, row.kind, row.began_at, row.id)
    )
    if model is not None:
        query = query.where(row.model == model)
    return [
        InForce(period, VersionView(version, content))
        for period, version, content in session.execute(query)
    ]


def list_versions(session: Session, digest: str) -> list[VersionView]:
    """Return the versions of this digest: one, unless two kinds have the same content.

    Where only some models are met, those that one of them ran.
    """
    ran = exists().where(ConfigurationPeriod.version_id == ConfigurationVersion.id)
    query = (
        select(ConfigurationVersion, ConfigurationContent.content)
        .outerjoin(ConfigurationContent, ConfigurationContent.version_id == ConfigurationVersion.id)
        .where(ConfigurationVersion.digest == digest, or_(OF_ALL_MODELS, ran))
        .order_by(ConfigurationVersion.kind)
    )
    return [VersionView(*row) for row in session.execute(query)]


def digests_of(session: Session, ids: Collection[int | None]) -> dict[int, str]:
    """Return the digests of versions by id."""
    if not ids:
        return {}
    query = select(ConfigurationVersion.id, ConfigurationVersion.digest)
    return {row.id: row.digest for row in session.execute(query.where(ConfigurationVersion.id.in_(ids)))}


def list_changes(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[Change]:
    """Return one page of begins and ends, newest first.

    An end that nobody told is at the last report, and is there once that does not stand any more.
    """
    events = _events(wanted)
    query = (
        select(
            events.c.id,
            events.c.at,
            events.c.event,
            events.c.changes,
            ConfigurationPeriod,
            ConfigurationVersion,
        )
        .join(ConfigurationPeriod, ConfigurationPeriod.id == events.c.period_id)
        .join(ConfigurationVersion, ConfigurationVersion.id == ConfigurationPeriod.version_id)
        .order_by(events.c.at.desc(), events.c.id.desc())
    )
    if not wanted.every_process:
        query = query.where(events.c.changes)
    if wanted.start is not None:
        query = query.where(events.c.at >= wanted.start)
    if wanted.end is not None:
        query = query.where(events.c.at < wanted.end)
    if after is not None:
        query = query.where(
            or_(events.c.at < after.at, and_(events.c.at == after.at, events.c.id < after.id))
        )
    rows = [Change(*row) for row in session.execute(query.limit(limit + 1))]
    page = rows[:limit]
    return Page(page, Position(page[-1].at, page[-1].id) if len(rows) > limit else None)


def _events(wanted: Filter) -> Subquery:
    row, other = ConfigurationPeriod, aliased(ConfigurationPeriod)
    until, other_until, narrowed = _until(row), _until(other), _conditions(wanted)
    same = (
        other.id != row.id,
        other.model == row.model,
        other.kind == row.kind,
        other.layer.is_not_distinct_from(row.layer),
        other.version_id == row.version_id,
    )
    # Of several that begin or end at once one is the change: their ids tell which.
    ran_before = exists().where(
        *same, tuple_(other.began_at, other.id) < tuple_(row.began_at, row.id), other_until >= row.began_at
    )
    runs_on = exists().where(
        *same, tuple_(other_until, other.id) > tuple_(until, row.id), other.began_at <= until
    )
    begins = select(
        row.id.label("id"),
        row.id.label("period_id"),
        row.began_at.label("at"),
        literal("began", Text).label("event"),
        (~ran_before).label("changes"),
    )
    ends = select(
        # An id of its own, which pages go by: a period of one report begins and ends at one moment.
        cast(func.md5(cast(row.id, Text)), UUID(as_uuid=True)).label("id"),
        row.id.label("period_id"),
        func.coalesce(row.ended_at, row.last_seen_at).label("at"),
        case((row.ended_at.is_not(None), "ended"), else_="lost").label("event"),
        (~runs_on).label("changes"),
    ).where(or_(row.ended_at.is_not(None), row.last_seen_at < func.now() - HOLDS))
    return union_all(begins.where(*narrowed), ends.where(*narrowed)).subquery()


def _until(row: Any) -> Any:
    """Return until when a period says what is in force."""
    return func.coalesce(row.ended_at, row.last_seen_at + HOLDS)


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    row = ConfigurationPeriod
    equal = ((row.model, wanted.model), (row.kind, wanted.kind))
    return [column == value for column, value in equal if value is not None]
