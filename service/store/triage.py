"""Triage by compare-and-set: the only changes that the service makes to incidents. The caller commits."""

import uuid
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.incidents.lifecycle import EventKind, Reason, State
from service.store import identity
from service.store.evidence.events import add_event
from service.store.tables import Flag, Incident, WebhookMessage


class Actor(NamedTuple):
    """Who acts: an API key, or a person in a session."""

    key_id: uuid.UUID | None
    key_name: str | None
    session_id: uuid.UUID | None = None
    issuer: str | None = None
    person: str | None = None


class Change(NamedTuple):
    """A change of state that somebody asks for, with what it says of each concept."""

    version: int
    """Of the incident as it was read: the change is refused when that is not its version any more."""
    to: State
    reason: Reason
    note: str | None
    labels: Mapping[str, bool]


def lock_incident(session: Session, incident_id: uuid.UUID) -> Incident | None:
    """Return the incident, locked until the transaction ends; None when there is none of that id."""
    return session.scalar(select(Incident).where(Incident.id == incident_id).with_for_update())


def list_concepts(session: Session, incident: Incident) -> list[str]:
    """Return the concepts of the incident's flags, by name."""
    query = select(Flag.concept).where(
        Flag.model_id == incident.model_id,
        Flag.decoder_id == incident.decoder_id,
        Flag.capture_id == incident.capture_id,  # None becomes IS NULL
        Flag.request_id == incident.request_id,
        Flag.layer == incident.layer,
    )
    return list(session.scalars(query.order_by(Flag.concept)))


def apply(session: Session, incident: Incident, change: Change, actor: Actor) -> None:
    """Change the state of an incident that `lock_incident` returned, with its event and its message.

    The caller has checked that version and transition are allowed.
    """
    version = incident.version + 1
    event = {
        "id": identity.incident_event_id(incident.id, version),
        "incident_id": incident.id,
        "version": version,
        "kind": EventKind.TRIAGED,
        **actor._asdict(),
        "from_state": incident.state,
        "to_state": change.to,
        "severity": incident.severity,
        "reason": change.reason,
        "note": change.note,
        "labels": dict(change.labels),
    }
    add_event(session, event)
    session.execute(insert(WebhookMessage).values(event_id=event["id"]))
    values = {
        "state": change.to,
        "version": version,
        "labels": dict(change.labels),
        "updated_at": func.now(),
    }
    session.execute(update(Incident).where(Incident.id == incident.id).values(values))
