"""Reading incidents with everything that they stand on."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    SQLColumnExpression,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.orm import Session, aliased, defer

from service.incidents.lifecycle import CLOSED, UNDECIDED, State, queue_rank
from service.incidents.review import Identity
from service.store.days import is_match_of_explanation, is_sample_of_explanation, near_capture
from service.store.read import discoveries, explanations, names, reviews
from service.store.read.page import Page, Position, older_than
from service.store.tables import (
    IS_UNDECIDED,
    QUEUE_RANK,
    ConceptMatch,
    Decoder,
    Explanation,
    Flag,
    Incident,
    IncidentEvent,
    Model,
    Sample,
    WebhookDelivery,
)

_FLAGS_OF_RARE: Final = 500
"""A concept with fewer flags is rare."""
_FLAGS_OF: Final = (
    select(Flag)
    .where(
        or_(
            Flag.capture_id == any_(bindparam("captures", type_=ARRAY(Uuid))),
            and_(
                Flag.request_id == any_(bindparam("requests", type_=ARRAY(Text))), Flag.capture_id.is_(None)
            ),
        )
    )
    .order_by(Flag.concept)
)
LISTED_POSITIONS: Final = 1000
"""More of one incident are counted and not listed; a capture's rows are bounded by its policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which incidents to list; None means any. An incident spans its first to its last capture."""

    model: str | None = None
    request_id: str | None = None  # any id that its client may have sent
    concept: str | None = None  # one of its flags has it
    severity: str | None = None
    state: str | None = None  # or `UNDECIDED`
    assignee: Identity | None = None
    is_unassigned: bool = False
    captured_after: dt.datetime | None = None  # the span ends at or after this
    captured_before: dt.datetime | None = None  # the span begins before this


class View(NamedTuple):
    """One incident with its flags, its decoder (``card`` not loaded) and its model's name."""

    incident: Incident
    decoder: Decoder
    model: str
    flags: Sequence[Flag]
    """Ordered by concept."""
    needs_second: bool
    """A concept of its flags asks for a second reviewer."""
    proposal: IncidentEvent | None
    """What a first one said, while it stands."""


class Positions(NamedTuple):
    """How many positions of the capture a decoder read at the incident's layer."""

    read: int
    verified: int
    evidence: int
    """Those that matched a flagged concept, verified or not, are anomalous, or that it was tested by."""
    anomalous: int


class Detail(NamedTuple):
    """One incident with all of its evidence and its history."""

    view: View
    positions: Positions
    evidence: Sequence[explanations.View]
    """The first `LISTED_POSITIONS` in their order."""
    events: Sequence[IncidentEvent]
    deliveries: Sequence[WebhookDelivery]
    discovery: discoveries.View | None


class Undecided(NamedTuple):
    """The open or acknowledged incidents of one model and severity."""

    model: str
    state: str
    severity: str
    incidents: int
    waiting_since: dt.datetime | None
    """When the one that waits longest was opened or opened again; None unless they are open."""


def count_undecided(session: Session) -> list[Undecided]:
    """Return the incidents that nobody has decided on, by model, state and severity."""
    opened = (IncidentEvent.to_state == State.OPEN) & IncidentEvent.from_state.is_distinct_from(State.OPEN)
    since = (
        select(func.max(IncidentEvent.at))
        .where(IncidentEvent.incident_id == Incident.id, opened)
        .correlate(Incident)
        .scalar_subquery()
    )
    columns = (Model.name, Incident.state, Incident.severity)
    query = (
        select(*columns, func.count(), func.min(since).filter(Incident.state == State.OPEN))
        .join(Model, Model.id == Incident.model_id)
        .where(Incident.state.not_in(CLOSED))
        .group_by(*columns)
    )
    return [Undecided(*row) for row in session.execute(query)]


def list_incidents(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[View]:
    """Return one page, newest opened first."""
    query = _wanted(session, wanted)
    if query is None:
        return Page([], None)
    if after is not None:
        query = query.where(older_than(Incident.opened_at, Incident.id, after))
    query = query.order_by(Incident.opened_at.desc(), Incident.id.desc())
    page = _of_page(
        query.limit(limit + 1), lambda incident: (incident.opened_at.desc(), incident.id.desc())
    )
    return _page(session, page, limit, lambda last: Position(last.opened_at, last.id))


def list_queue(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[View]:
    """Return one page by severity, the highest first, and within one by age, the oldest first.

    A severity may rise: an incident that comes before the page's position meanwhile is met from the start.
    """
    query = _wanted(session, wanted)
    if query is None:
        return Page([], None)
    rank = literal_column(QUEUE_RANK, Integer)
    if after is not None:
        behind = tuple_(literal(after.rank, Integer), after.at, after.id)
        query = query.where(tuple_(rank, Incident.opened_at, Incident.id) > behind)
    query = query.order_by(rank, Incident.opened_at, Incident.id)
    page = _of_page(query.limit(limit + 1), lambda incident: (rank, incident.opened_at, incident.id))
    return _page(
        session, page, limit, lambda last: Position(last.opened_at, last.id, queue_rank(last.severity))
    )


def _wanted(session: Session, wanted: Filter) -> Select[Incident] | None:
    """Return the query for incidents that a filter wants; None when its model is not there."""
    model_id = None
    if wanted.model is not None:
        model_id = session.scalar(select(Model.id).where(Model.name == wanted.model))
        if model_id is None:
            return None
    query = _narrowed(select(Incident), wanted, model_id)
    if wanted.concept is not None:
        query = query.where(_has_flag(session, wanted.concept))
    return query


def _page(
    session: Session, query: "_Query", limit: int, where: Callable[[Incident], Position]
) -> Page[View]:
    views = _load(session, query)
    page = views[:limit]
    return Page(page, where(page[-1].incident) if len(views) > limit else None)


def get_view(session: Session, identity: uuid.UUID) -> View | None:
    """Return one incident without its evidence, None when there is none of that id."""
    return next(iter(_load(session, _joined().where(Incident.id == identity))), None)


def get_incident(session: Session, identity: uuid.UUID) -> Detail | None:
    """Return one incident with its evidence, None when there is none of that id."""
    view = get_view(session, identity)
    if view is None:
        return None
    of_incident = IncidentEvent.incident_id == identity
    deliveries = (
        select(WebhookDelivery)
        .join(IncidentEvent, IncidentEvent.id == WebhookDelivery.event_id)
        .where(of_incident)
        .order_by(IncidentEvent.version, WebhookDelivery.destination)
    )
    discovery = discoveries.find_of_incident(session, view.incident)
    is_evidence = _is_evidence(view, discovery)
    samples = _evidence(session, view, is_evidence)
    return Detail(
        view,
        _count_positions(session, view, is_evidence),
        explanations.list_of_samples(session, samples, view.incident.decoder_id),
        session.scalars(select(IncidentEvent).where(of_incident).order_by(IncidentEvent.version)).all(),
        session.scalars(deliveries).all(),
        discovery,
    )


_Query = Select[Incident, Decoder, str]


def _joined() -> _Query:
    return (
        select(Incident, Decoder, Model.name)
        .join(Model, Model.id == Incident.model_id)
        .join(Decoder, Decoder.id == Incident.decoder_id)
        .options(defer(Decoder.card, raiseload=True))
    )


def _of_page(page: Select[Incident], order: Callable[[Any], Sequence[ColumnElement[Any]]]) -> _Query:
    """Return the query for a page's incidents with decoder and model, looked up for these alone.

    Joined before the page is cut, conditions of row-level security have PostgreSQL expect one row in all,
    and it sorts every incident that there is.
    """
    incident = aliased(Incident, page.subquery())
    return (
        select(incident, Decoder, Model.name)
        .join(Model, Model.id == incident.model_id)
        .join(Decoder, Decoder.id == incident.decoder_id)
        .options(defer(Decoder.card, raiseload=True))
        .order_by(*order(incident))
    )


def _has_flag(session: Session, concept: str) -> ColumnElement[bool]:
    """Return the condition that one of the incident's flags has the concept.

    Of a rare concept its flags lead to their incidents. Of any other the incidents are walked, and each is
    looked up: OFFSET keeps PostgreSQL from looking at all flags first.
    """
    of_concept = select(Flag.id).where(Flag.concept == concept).limit(_FLAGS_OF_RARE).subquery()
    is_rare = (session.scalar(select(func.count()).select_from(of_concept)) or 0) < _FLAGS_OF_RARE
    one = select(literal(1)).where(Flag.concept == concept, is_flag_of_incident()).correlate(Incident)
    if not is_rare:
        return one.offset(0).exists()
    incident = aliased(Incident)
    flags = select(Flag).where(Flag.concept == concept).limit(_FLAGS_OF_RARE).subquery()
    flag = aliased(Flag, flags)
    return Incident.id.in_(
        select(incident.id).join(flag, is_flag_of_incident(flag, incident)).correlate(None)
    )


def _narrowed(query: Select[Incident], wanted: Filter, model_id: uuid.UUID | None) -> Select[Incident]:
    equal = (
        (Incident.model_id, model_id),
        (Incident.severity, wanted.severity),
        (Incident.state, None if wanted.state == UNDECIDED else wanted.state),
    )
    query = query.where(*(column == value for column, value in equal if value is not None))
    if wanted.state == UNDECIDED:
        query = query.where(text(IS_UNDECIDED))
    if wanted.assignee is not None:
        columns = (Incident.assignee_key_id, Incident.assignee_issuer, Incident.assignee_person)
        pairs = zip(columns, wanted.assignee, strict=True)
        query = query.where(*(column == value for column, value in pairs))  # None becomes IS NULL
    if wanted.is_unassigned:
        query = query.where(Incident.assignee_key_id.is_(None), Incident.assignee_person.is_(None))
    if wanted.request_id is not None:
        query = query.where(names.is_of_request(Incident, wanted.request_id))
    if wanted.captured_after is not None:
        query = query.where(Incident.last_captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        query = query.where(Incident.first_captured_at < wanted.captured_before)
    return query


def is_flag_of_incident(flag: Any = Flag, incident: Any = Incident) -> ColumnElement[bool]:
    """Return the condition that joins flags to their incident, or aliases of both."""
    return and_(
        flag.model_id == incident.model_id,
        flag.decoder_id == incident.decoder_id,
        flag.layer == incident.layer,
        flag.request_id == incident.request_id,
        names.is_same_capture(flag.capture_id, incident.capture_id),
    )


def _load(session: Session, query: _Query) -> list[View]:
    rows = session.execute(query).all()
    subjects = {_subject(row[0]) for row in rows}
    found: defaultdict[tuple[Any, ...], list[Flag]] = defaultdict(list)
    incidents = [row[0] for row in rows]
    captures = [one.capture_id for one in incidents if one.capture_id is not None]
    requests = [one.request_id for one in incidents if one.capture_id is None]
    for flag in session.scalars(_FLAGS_OF, {"captures": captures, "requests": requests}):
        if _subject(flag) in subjects:  # else of another layer or decoder
            found[_subject(flag)].append(flag)
    digests = {flag.concept_digest for flags in found.values() for flag in flags if flag.concept_digest}
    asking = reviews.asking_for_two(session, digests)
    standing = reviews.list_standing(session, [one.id for one in incidents])
    return [
        View(
            row[0],
            row[1],
            row[2],
            flags := found[_subject(row[0])],
            any(flag.concept_digest in asking for flag in flags),
            standing.get(row[0].id),
        )
        for row in rows
    ]


def _subject(row: Incident | Flag) -> tuple[Any, ...]:
    return (row.model_id, row.decoder_id, row.layer, row.capture_id, row.request_id)


def _of_subject(incident: Incident) -> tuple[ColumnElement[bool], ...]:
    return (
        *_near(incident, Sample.captured_at, Explanation.captured_at),
        Sample.model_id == incident.model_id,
        Sample.capture_id == incident.capture_id,  # None becomes IS NULL
        Sample.request_id == incident.request_id,
        Sample.layer == incident.layer,
        Explanation.decoder_id == incident.decoder_id,
    )


def _near(incident: Incident, *columns: SQLColumnExpression[dt.datetime]) -> list[ColumnElement[bool]]:
    span = (incident.first_captured_at, incident.last_captured_at)
    return near_capture(incident.capture_id, columns, *span)


def _is_anomalous(incident: Incident) -> ColumnElement[bool]:
    if incident.anomaly_p_value is None:
        return false()
    return Explanation.anomaly_p_value <= incident.anomaly_p_value


def _is_evidence(view: View, discovery: discoveries.View | None) -> ColumnElement[bool]:
    concepts = [flag.concept for flag in view.flags]
    matched = exists().where(
        is_match_of_explanation(),
        ConceptMatch.concept.in_(concepts),
        *_near(view.incident, ConceptMatch.captured_at),
    )
    tested = [] if discovery is None else discovery.test.positions
    return or_(matched, _is_anomalous(view.incident), Sample.position.in_(tested))


def _count_positions(session: Session, view: View, is_evidence: ColumnElement[bool]) -> Positions:
    count = func.count(Sample.position.distinct())
    query = (
        select(
            count,
            count.filter(Explanation.verified),
            count.filter(is_evidence),
            count.filter(_is_anomalous(view.incident)),
        )
        .join(Explanation, is_sample_of_explanation())
        .where(*_of_subject(view.incident))
    )
    return Positions(*session.execute(query).one())


def _evidence(session: Session, view: View, is_evidence: ColumnElement[bool]) -> list[Sample]:
    query = (
        select(Sample)
        .join(Explanation, is_sample_of_explanation())
        .where(*_of_subject(view.incident), is_evidence)
        .order_by(Sample.position, Sample.id)
        .limit(LISTED_POSITIONS)
    )
    return list(session.scalars(query))
