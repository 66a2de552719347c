"""Triage by compare-and-set: the only changes that the service makes to incidents. The caller commits."""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.auth import Scope
from service.incidents.lifecycle import EventKind, Reason, State
from service.incidents.review import Identity
from service.store import identity
from service.store.evidence.events import add_event
from service.store.keys import get_key_by_id
from service.store.people.tables import LoginSession
from service.store.tables import Flag, Incident, WebhookMessage

_NEEDS_TWO: Final = "incidents_need_two"
"""The trigger's name for its refusal, see migration 0039."""


class SecondNeededError(Exception):
    """The database knows a flag that asks for two reviewers and that the caller did not see."""

    def __init__(self) -> None:
        super().__init__(
            "a flag arrived while you decided, and its concept asks for two reviewers: read the incident "
            "again and decide anew"
        )


class Assignee(NamedTuple):
    """Who looks at an incident, by column: a key, or a person."""

    assignee_key_id: uuid.UUID | None = None
    assignee_key_name: str | None = None
    assignee_issuer: str | None = None
    assignee_person: str | None = None


class Actor(NamedTuple):
    """Who acts: an API key, or a person in a session."""

    key_id: uuid.UUID | None
    key_name: str | None
    session_id: uuid.UUID | None = None
    issuer: str | None = None
    person: str | None = None

    @property
    def identity(self) -> Identity:
        """What tells him from others, in whichever session."""
        return Identity(self.key_id, self.issuer, self.person)

    @property
    def assignee(self) -> Assignee:
        """Himself as an assignee."""
        return Assignee(self.key_id, self.key_name, self.issuer, self.person)


class Change(NamedTuple):
    """A change of state that somebody asks for, with what it says of each concept."""

    version: int
    """Of the incident as it was read: the change is refused when that is not its version any more."""
    to: State
    reason: Reason
    note: str | None
    labels: Mapping[str, bool]
    agrees_with: int | None = None
    """The version of a proposal that says the same; None: no second reviewer was needed."""


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

    The caller has checked that version and transition are allowed. ``change.agrees_with`` is the version of
    the proposal that this is the second verdict of. Raises SecondNeededError when a flag that arrived since
    asks for one; nothing of the transaction can be kept then.
    """
    version = _add_event(
        session,
        incident,
        actor,
        kind=EventKind.TRIAGED,
        to_state=change.to,
        reason=change.reason,
        note=change.note,
        labels=dict(change.labels),
        proposal=change.agrees_with,
    )
    try:
        _update(session, incident, version, state=change.to, labels=dict(change.labels))
    except IntegrityError as error:
        # Whoever adds flags need not wait for the incident's lock.
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != _NEEDS_TWO:
            raise
        raise SecondNeededError from error


def propose(session: Session, incident: Incident, change: Change, actor: Actor) -> None:
    """Note what a first reviewer says of an incident that `lock_incident` returned; its state stays."""
    version = _add_event(
        session,
        incident,
        actor,
        kind=EventKind.PROPOSED,
        to_state=incident.state,
        reason=change.reason,
        note=change.note,
        labels=dict(change.labels),
        proposed_state=change.to,
        proposal=incident.version + 1,
    )
    _update(session, incident, version)


def assign(session: Session, incident: Incident, assignee: Assignee | None, actor: Actor) -> None:
    """Give an incident that `lock_incident` returned to a reviewer, or to nobody; its state stays."""
    columns = (assignee or Assignee())._asdict()
    version = _add_event(
        session, incident, actor, kind=EventKind.ASSIGNED, to_state=incident.state, **columns
    )
    _update(session, incident, version, **columns)


def find_reviewer(session: Session, asked: Identity, now: dt.datetime) -> Assignee | None:
    """Return the key or person as an assignee: one that may triage at ``now``; None when there is none."""
    may_triage = {Scope.INCIDENTS_TRIAGE, Scope.ADMIN}
    if asked.key_id is not None:
        key = get_key_by_id(session, asked.key_id)
        if key is None or key.revoked_at is not None or (key.expires_at and key.expires_at <= now):
            return None
        return Assignee(key.id, key.name) if may_triage & set(key.scopes) else None
    of_person = select(LoginSession.scopes).where(
        LoginSession.issuer == asked.issuer, LoginSession.person == asked.person
    )
    # As it was when he signed in last: nobody knows more of a person who is not here.
    scopes = session.scalar(of_person.order_by(LoginSession.created_at.desc()).limit(1))
    if scopes is None or not may_triage & set(scopes):
        return None
    return Assignee(assignee_issuer=asked.issuer, assignee_person=asked.person)


def _add_event(session: Session, incident: Incident, actor: Actor, **event: Any) -> int:
    """Add the incident's next event with its message, and return its version."""
    version = incident.version + 1
    row = {
        "id": identity.incident_event_id(incident.id, version),
        "incident_id": incident.id,
        "version": version,
        **actor._asdict(),
        "from_state": incident.state,
        "severity": incident.severity,
        **event,
    }
    add_event(session, row)
    session.execute(insert(WebhookMessage).values(event_id=row["id"]))
    return version


def _update(session: Session, incident: Incident, version: int, **values: Any) -> None:
    changed = {"version": version, "updated_at": func.now(), **values}
    session.execute(update(Incident).where(Incident.id == incident.id).values(changed))
