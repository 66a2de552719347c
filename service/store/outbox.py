"""Messages for webhooks: routed to a destination, claimed for one attempt, settled. The caller commits.

Several services share the work: rows that another one has locked are skipped.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Subquery, case, cast, exists, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import JSONPATH, insert
from sqlalchemy.orm import Session, aliased

from service.incidents.lifecycle import SEVERITIES
from service.store.tables import Decoder, Incident, IncidentEvent, Model, WebhookDelivery, WebhookMessage
from service.store.tenants.scope import COLUMN_DEFAULT

ROUTED_WITHIN: Final = dt.timedelta(days=1)
"""A message is sent to a destination that a service has when the event is at most so old."""
NOTED_WITHIN: Final = dt.timedelta(days=7)
"""Up to this age, a message that a known destination never got is noted as expired."""
JUST_NOW: Final = dt.timedelta(minutes=2)
"""No transaction takes longer from a message's time to its commit, but for one that is stuck."""
ABANDONED_AFTER: Final = dt.timedelta(days=3)
"""A delivery that has been due for so long has no service that knows its destination."""
ROUTED_AT_ONCE: Final = 500
_EXPIRED: Final = "expired: no service with this destination ran in time"
_IS_OF_TENANT: Final = WebhookMessage.tenant_id == COLUMN_DEFAULT
"""Also where no row-level security says so: a destination of a tenant who is not there is told nothing."""
_CALIBRATED: Final = cast("$[*].false_positive_rate ? (@ != null)", JSONPATH)


class Claim(NamedTuple):
    """One attempt to deliver one message, which nobody else makes until the lease ends."""

    event_id: uuid.UUID
    destination: str
    attempts: int
    """This one included."""


class Telling(NamedTuple):
    """What a message is made of; none of it changes once it is stored."""

    event: IncidentEvent
    incident: Incident
    """Only what identifies it is read: the rest changes."""
    model: str
    decoder_name: str
    decoder_digest: str
    findings: Sequence[Mapping[str, Any]]
    """All of the incident's up to this event."""


class Routed(NamedTuple):
    """What a destination was given by one look."""

    sent: int
    """Deliveries to make."""
    expired: int
    """Messages that are too old to be sent."""
    oldest: dt.datetime | None
    """The time of the oldest of them."""


def route(
    session: Session, destination: str, within: dt.timedelta, before: dt.datetime | None = None
) -> Routed:
    """Give the destination what it has no delivery of: the newest `ROUTED_AT_ONCE`.

    Looks at messages younger than ``within``, and with ``before`` at none newer than that. Those older than
    `ROUTED_WITHIN` are not sent any more: the delivery tells so, where the destination was known before the
    message. Each destination is routed by itself, so that services with different ones, as during a
    restart, lose nothing to each other.
    """
    owed = _owed(destination, within, before)
    is_young = owed.c.created_at > func.now() - ROUTED_WITHIN
    query = (
        select(
            owed.c.event_id,
            literal(destination),
            case((is_young, "pending"), else_="failed"),
            literal(0),
            _priority(),
            owed.c.created_at,
            case((is_young, null()), else_=_EXPIRED),
            case((is_young, null()), else_=func.now()),
        )
        .join(IncidentEvent, IncidentEvent.id == owed.c.event_id)
        .order_by(owed.c.created_at.desc(), owed.c.event_id)  # one order for all services: no deadlock
    )
    columns = ("event_id", "destination", "state", "attempts", "priority", "next_attempt_at")
    statement = (
        insert(WebhookDelivery)
        .from_select([*columns, "last_error", "settled_at"], query)
        .on_conflict_do_nothing()
        .returning(WebhookDelivery.state, WebhookDelivery.next_attempt_at)
    )
    new = session.execute(statement).all()
    expired = sum(state == "failed" for state, _ in new)
    return Routed(len(new) - expired, expired, min((created_at for _, created_at in new), default=None))


def _owed(destination: str, within: dt.timedelta, before: dt.datetime | None) -> Subquery:
    """Return the messages to route, by themselves: no priority is worked out for what is left over."""
    created = WebhookMessage.created_at
    query = select(WebhookMessage.event_id, created).where(
        _IS_OF_TENANT, created > func.now() - within, ~_is_routed(destination)
    )
    if within > ROUTED_WITHIN:
        is_young = created > func.now() - ROUTED_WITHIN
        query = query.where(or_(is_young, created > _known_since(destination)))
    if before is not None:
        query = query.where(created <= before)
    return query.order_by(created.desc(), WebhookMessage.event_id).limit(ROUTED_AT_ONCE).subquery()


def _priority() -> ColumnElement[int]:
    """Return the place in the queue: by severity, and of one severity what is calibrated before leads."""
    earlier = aliased(IncidentEvent)
    is_calibrated = exists().where(
        earlier.incident_id == IncidentEvent.incident_id,
        earlier.version <= IncidentEvent.version,
        func.jsonb_path_exists(earlier.findings, _CALIBRATED),
    )
    ranks = {name: rank for rank, name in enumerate(reversed(SEVERITIES))}
    return 2 * case(ranks, value=IncidentEvent.severity, else_=len(ranks)) + case(
        (is_calibrated, 0), else_=1
    )


def _is_routed(destination: str) -> ColumnElement[bool]:
    return exists().where(
        WebhookDelivery.event_id == WebhookMessage.event_id, WebhookDelivery.destination == destination
    )


def _known_since(destination: str) -> ColumnElement[dt.datetime]:
    """Return the time of the oldest message that the destination was given, NULL when it is new."""
    message = aliased(WebhookMessage)
    return (
        select(message.created_at)
        .join(WebhookDelivery, WebhookDelivery.event_id == message.event_id)
        .where(WebhookDelivery.destination == destination, message.created_at > func.now() - NOTED_WITHIN)
        .order_by(message.created_at)
        .limit(1)
        .scalar_subquery()
    )


def expire(session: Session) -> dict[str, int]:
    """Give up what nobody sends, as of a destination that was taken out; return how many, by its name."""
    statement = (
        update(WebhookDelivery)
        .where(
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_attempt_at < func.now() - ABANDONED_AFTER,
        )
        .values(state="failed", settled_at=func.now(), last_error=_EXPIRED)
        .returning(WebhookDelivery.destination)
    )
    return dict(Counter(session.scalars(statement)))


def claim(session: Session, destination: str, lease: dt.timedelta) -> Claim | None:
    """Take the due delivery of the first priority, of these the longest due; None when none is due.

    One that failed is due after its pause, behind those that wait since before. It is due again when the
    lease ends, so a sender that dies leaves it to the next.
    """
    query = (
        select(WebhookDelivery)
        .where(
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_attempt_at <= func.now(),
            WebhookDelivery.destination == destination,
        )
        .order_by(WebhookDelivery.priority, WebhookDelivery.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = session.scalar(query)
    if found is None:
        return None
    claimed = Claim(found.event_id, destination, found.attempts + 1)
    _change(session, claimed, {"attempts": claimed.attempts, "next_attempt_at": func.now() + lease})
    return claimed


def get_telling(session: Session, event_id: uuid.UUID) -> Telling:
    """Return what the message of this event is made of."""
    query = (
        select(IncidentEvent, Incident, Model.name, Decoder.name, Decoder.digest)
        .join(Incident, Incident.id == IncidentEvent.incident_id)
        .join(Model, Model.id == Incident.model_id)
        .join(Decoder, Decoder.id == Incident.decoder_id)
        .where(IncidentEvent.id == event_id)
    )
    event, incident, model, decoder_name, decoder_digest = session.execute(query).one()
    earlier = (
        select(IncidentEvent.findings)
        .where(IncidentEvent.incident_id == incident.id, IncidentEvent.version <= event.version)
        .order_by(IncidentEvent.version)
    )
    findings = [found for batch in session.scalars(earlier) for found in batch]
    return Telling(event, incident, model, decoder_name, decoder_digest, findings)


def mark_delivered(session: Session, claimed: Claim) -> None:
    """Settle the delivery: the receiver took it, whoever else may have claimed or failed it meanwhile."""
    values = {"state": "delivered", "settled_at": func.now(), "last_error": None}
    session.execute(update(WebhookDelivery).where(*_is(claimed)).values(values))


def mark_failed(session: Session, claimed: Claim, error: str) -> None:
    """Give the delivery up."""
    _change(session, claimed, {"state": "failed", "settled_at": func.now(), "last_error": error}, ours=True)


def postpone(session: Session, claimed: Claim, error: str, pause: dt.timedelta) -> None:
    """Let the delivery be tried again after a pause."""
    _change(session, claimed, {"next_attempt_at": func.now() + pause, "last_error": error}, ours=True)


def _change(session: Session, claimed: Claim, values: Mapping[str, Any], *, ours: bool = False) -> None:
    """Change the delivery while it is pending; ``ours``: and while nobody else has claimed it since."""
    conditions = [*_is(claimed), WebhookDelivery.state == "pending"]
    if ours:
        conditions.append(WebhookDelivery.attempts == claimed.attempts)
    session.execute(update(WebhookDelivery).where(*conditions).values(values))


def _is(claimed: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        WebhookDelivery.event_id == claimed.event_id,
        WebhookDelivery.destination == claimed.destination,
    )


class Waiting(NamedTuple):
    """What waits for one destination."""

    pending: int
    oldest: dt.datetime | None


def list_waiting(session: Session, destinations: Sequence[str]) -> dict[str, Waiting]:
    """Return what waits for each destination, with what it has no delivery of yet."""
    query = (
        select(WebhookDelivery.destination, func.count(), func.min(WebhookMessage.created_at))
        .join(WebhookMessage, WebhookMessage.event_id == WebhookDelivery.event_id)
        .where(WebhookDelivery.state == "pending")
        .group_by(WebhookDelivery.destination)
    )
    pending = {name: Waiting(number, since) for name, number, since in session.execute(query)}
    waiting = {}
    for name in destinations:
        unrouted = select(func.count(), func.min(WebhookMessage.created_at)).where(
            _IS_OF_TENANT, WebhookMessage.created_at > func.now() - ROUTED_WITHIN, ~_is_routed(name)
        )
        parts = (pending.get(name, Waiting(0, None)), Waiting(*session.execute(unrouted).one()))
        times = [part.oldest for part in parts if part.oldest is not None]
        waiting[name] = Waiting(sum(part.pending for part in parts), min(times, default=None))
    return waiting
