"""Messages for webhooks: routed to destinations, claimed for one attempt, settled. The caller commits.

Several services share the work: rows that another one has locked are skipped.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.tables import Decoder, Incident, IncidentEvent, Model, WebhookDelivery, WebhookMessage

ROUTED_WITHIN: Final = dt.timedelta(days=1)
"""A message that no service with a destination saw for longer is not sent any more."""
_ROUTED_AT_ONCE: Final = 200


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


def route(session: Session, destinations: Sequence[str]) -> int:
    """Give messages a delivery for each destination; return how many were too old to be sent."""
    query = (
        select(WebhookMessage.event_id, WebhookMessage.created_at > func.now() - ROUTED_WITHIN)
        .where(WebhookMessage.routed_at.is_(None))
        .order_by(WebhookMessage.created_at)
        .limit(_ROUTED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    found = session.execute(query).all()
    if not found:
        return 0
    rows = [
        {
            "event_id": event_id,
            "destination": destination,
            "state": "pending",
            "attempts": 0,
            "next_attempt_at": func.now(),
        }
        for event_id, is_young in found
        if is_young
        for destination in destinations
    ]
    if rows:
        session.execute(insert(WebhookDelivery).values(rows).on_conflict_do_nothing())
    routed = WebhookMessage.event_id.in_([event_id for event_id, _ in found])
    session.execute(update(WebhookMessage).where(routed).values(routed_at=func.now()))
    return sum(not is_young for _, is_young in found)


def claim(session: Session, destination: str, lease: dt.timedelta) -> Claim | None:
    """Take the delivery that has been due longest; None when none is due.

    It is due again when the lease ends, so a sender that dies leaves it to the next.
    """
    query = (
        select(WebhookDelivery)
        .where(
            WebhookDelivery.state == "pending",
            WebhookDelivery.next_attempt_at <= func.now(),
            WebhookDelivery.destination == destination,
        )
        .order_by(WebhookDelivery.next_attempt_at)
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
    """Settle the delivery: the receiver took it, whoever else may have claimed it meanwhile."""
    _change(session, claimed, {"state": "delivered", "settled_at": func.now(), "last_error": None})


def mark_failed(session: Session, claimed: Claim, error: str) -> None:
    """Give the delivery up."""
    _change(session, claimed, {"state": "failed", "settled_at": func.now(), "last_error": error}, ours=True)


def postpone(session: Session, claimed: Claim, error: str, pause: dt.timedelta) -> None:
    """Let the delivery be tried again after a pause."""
    _change(session, claimed, {"next_attempt_at": func.now() + pause, "last_error": error}, ours=True)


def _change(session: Session, claimed: Claim, values: Mapping[str, Any], *, ours: bool = False) -> None:
    """Change the delivery while it is pending; ``ours``: and while nobody else has claimed it since."""
    conditions = [
        WebhookDelivery.event_id == claimed.event_id,
        WebhookDelivery.destination == claimed.destination,
        WebhookDelivery.state == "pending",
    ]
    if ours:
        conditions.append(WebhookDelivery.attempts == claimed.attempts)
    session.execute(update(WebhookDelivery).where(*conditions).values(values))


class Waiting(NamedTuple):
    """What waits for one destination."""

    pending: int
    oldest: dt.datetime | None


def list_waiting(session: Session, destinations: Sequence[str]) -> dict[str, Waiting]:
    """Return what waits for each destination, messages that are not routed yet for all of them."""
    unrouted = select(func.count(), func.min(WebhookMessage.created_at)).where(
        WebhookMessage.routed_at.is_(None), WebhookMessage.created_at > func.now() - ROUTED_WITHIN
    )
    count, oldest = session.execute(unrouted).one()
    query = (
        select(WebhookDelivery.destination, func.count(), func.min(WebhookMessage.created_at))
        .join(WebhookMessage, WebhookMessage.event_id == WebhookDelivery.event_id)
        .where(WebhookDelivery.state == "pending")
        .group_by(WebhookDelivery.destination)
    )
    pending = {name: Waiting(number, since) for name, number, since in session.execute(query)}
    waiting = {}
    for name in destinations:
        number, since = pending.get(name, Waiting(0, None))
        times = [time for time in (since, oldest) if time is not None]
        waiting[name] = Waiting(number + count, min(times, default=None))
    return waiting
