"""What happened to incidents and how long people took: events, decisions, and the clocks that run."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, exists, func, literal, select
from sqlalchemy.orm import Session, aliased

from service.incidents.lifecycle import CLOSED, EventKind, State
from service.store.read.page import Page, Position, older_than
from service.store.tables import Flag, Incident, IncidentEvent, Model

_Query = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which incidents' events; None means any. Times are of the event, or of an incident's opening."""

    start: dt.datetime | None = None  # inclusive
    end: dt.datetime | None = None  # exclusive
    model: str | None = None
    severity: str | None = None  # of the incident


class EventView(NamedTuple):
    """One event with its incident and the name of that one's model."""

    event: IncidentEvent
    incident: Incident
    model: str


class Times(NamedTuple):
    """How long something took for those incidents that it happened to."""

    incidents: int
    median_seconds: float | None
    p90_seconds: float | None
    longest_seconds: float | None


class Summary(NamedTuple):
    """How incidents that were opened in a period were reviewed, and what was decided in that period."""

    opened: int
    to_first_review: Times
    to_decision: Times


class Decisions(NamedTuple):
    """Decisions of one kind for one reason."""

    to: str
    reason: str
    decisions: int
    overridden: int
    """Those that a later decision on the same incident contradicts, in its state or in a label of both."""


class Clocked(NamedTuple):
    """One incident with when it was first confirmed; None while it is not."""

    incident: Incident
    model: str
    confirmed_at: dt.datetime | None
    is_calibrated: bool
    """At least one of its flags has a known rate."""


def list_events(
    session: Session, wanted: Filter, kind: str | None, after: Position | None, limit: int
) -> Page[EventView]:
    """Return one page of events, newest first."""
    newest_first = (IncidentEvent.at.desc(), IncidentEvent.id.desc())
    events = select(IncidentEvent).order_by(*newest_first)
    if kind is not None:
        events = events.where(IncidentEvent.kind == kind)
    if after is not None:
        events = events.where(older_than(IncidentEvent.at, IncidentEvent.id, after))
    if wanted.start is not None:
        events = events.where(IncidentEvent.at >= wanted.start)
    if wanted.end is not None:
        events = events.where(IncidentEvent.at < wanted.end)
    of_incident = [
        column == value
        for column, value in ((Model.name, wanted.model), (Incident.severity, wanted.severity))
        if value is not None
    ]
    if of_incident:
        of_model = Model.id == Incident.model_id
        is_wanted = select(literal(1)).select_from(Incident).join(Model, of_model)
        is_wanted = is_wanted.where(Incident.id == IncidentEvent.incident_id, *of_incident)
        # OFFSET has the events walked, and each incident looked up, as far as the page goes.
        events = events.where(is_wanted.correlate(IncidentEvent).offset(0).exists())
    # Cut before it is joined: conditions of row-level security have PostgreSQL expect one row in all.
    event = aliased(IncidentEvent, events.limit(limit + 1).subquery())
    query = (
        select(event, Incident, Model.name)
        .join(Incident, Incident.id == event.incident_id)
        .join(Model, Model.id == Incident.model_id)
        .order_by(event.at.desc(), event.id.desc())
    )
    views = [EventView(*row) for row in session.execute(query)]
    page = views[:limit]
    last = page[-1].event if len(views) > limit else None
    return Page(page, Position(last.at, last.id) if last else None)


def summarize(session: Session, wanted: Filter) -> Summary:
    """Return how long the incidents that were opened in the period waited, by now."""
    first_review = _first_event(IncidentEvent.kind == EventKind.TRIAGED)
    decision = _first_event(IncidentEvent.to_state.in_(CLOSED))
    opened = _narrowed(
        select(
            Incident.id,
            (func.extract("epoch", first_review - Incident.opened_at)).label("to_review"),
            (func.extract("epoch", decision - Incident.opened_at)).label("to_decision"),
        ),
        wanted,
        Incident.opened_at,
    ).subquery()
    query = select(func.count(), *_times(opened.c.to_review), *_times(opened.c.to_decision)).select_from(
        opened
    )
    row = session.execute(query).one()
    return Summary(row[0], Times(*row[1:5]), Times(*row[5:9]))


def count_decisions(session: Session, wanted: Filter) -> list[Decisions]:
    """Return the decisions of the period by state and reason, and how many were overridden since."""
    made, later = IncidentEvent, aliased(IncidentEvent)
    is_decision = (made.kind == EventKind.TRIAGED, made.to_state.in_(CLOSED))
    one, other = (func.jsonb_each(event.labels).table_valued("key", "value") for event in (made, later))
    # A label that only one of the two gives is of a concept that came or went, and contradicts nothing.
    labels_differ = exists().where(one.c.key == other.c.key, one.c.value != other.c.value)
    is_overridden = exists().where(
        later.incident_id == made.incident_id,
        later.version > made.version,
        later.kind == EventKind.TRIAGED,
        later.to_state.in_(CLOSED),
        (later.to_state != made.to_state) | labels_differ,
    )
    decided = _narrowed(
        select(made.to_state, made.reason, is_overridden.label("is_overridden")), wanted, made.at
    )
    found = decided.join(made, made.incident_id == Incident.id).where(*is_decision).subquery().c
    overridden = func.count().filter(found.is_overridden)
    query = (
        select(found.to_state, found.reason, func.count(), overridden)
        .group_by(found.to_state, found.reason)
        .order_by(found.to_state, found.reason)
    )
    return [Decisions._make(row) for row in session.execute(query)]


def list_clocked(
    session: Session, wanted: Filter, state: str | None, after: Position | None, limit: int
) -> Page[Clocked]:
    """Return one page of the incidents that are not dismissed, newest opened first."""
    confirmed_at = (
        select(func.min(IncidentEvent.at))
        .where(
            IncidentEvent.incident_id == Incident.id,
            IncidentEvent.to_state == State.CONFIRMED,
            IncidentEvent.from_state != State.CONFIRMED,
            Incident.state == State.CONFIRMED,
        )
        .correlate(Incident)
        .scalar_subquery()
    )
    is_calibrated = (
        exists()
        .where(
            Flag.model_id == Incident.model_id,
            Flag.decoder_id == Incident.decoder_id,
            Flag.layer == Incident.layer,
            Flag.capture_id.is_not_distinct_from(Incident.capture_id),
            Flag.request_id == Incident.request_id,
            Flag.false_positive_rate.is_not(None),
        )
        .correlate(Incident)
    )
    columns = select(Incident, Model.name, confirmed_at, is_calibrated)
    query = _narrowed(columns, wanted, Incident.opened_at)
    query = query.order_by(Incident.opened_at.desc(), Incident.id.desc())
    query = query.where(Incident.state != State.DISMISSED if state is None else Incident.state == state)
    if after is not None:
        query = query.where(older_than(Incident.opened_at, Incident.id, after))
    views = [Clocked(*row) for row in session.execute(query.limit(limit + 1))]
    page = views[:limit]
    last = page[-1].incident if len(views) > limit else None
    return Page(page, Position(last.opened_at, last.id) if last else None)


def _narrowed(query: _Query, wanted: Filter, at: SQLColumnExpression[dt.datetime]) -> _Query:
    query = query.select_from(Incident).join(Model, Model.id == Incident.model_id)
    if wanted.start is not None:
        query = query.where(at >= wanted.start)
    if wanted.end is not None:
        query = query.where(at < wanted.end)
    equal = ((Model.name, wanted.model), (Incident.severity, wanted.severity))
    return query.where(*(column == value for column, value in equal if value is not None))


def _first_event(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return (
        select(func.min(IncidentEvent.at))
        .where(IncidentEvent.incident_id == Incident.id, condition)
        .correlate(Incident)
        .scalar_subquery()
    )


def _times(seconds: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    quantiles = (func.percentile_cont(share).within_group(seconds) for share in (0.5, 0.9))
    return (func.count(seconds), *quantiles, func.max(seconds))
