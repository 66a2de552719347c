"""Store an incident's event and commit to it in the log. The caller commits."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind, payload_of
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.tables import IncidentEvent


def add_event(session: Session, event: Mapping[str, Any]) -> None:
    """Insert the event, whose time and defaults are the database's, and let the log commit to it."""
    salt = entry.new_salt()
    statement = insert(IncidentEvent).values(**event, log_salt=salt).returning(IncidentEvent)
    stored = session.execute(statement).scalar_one()
    append(session, Kind.INCIDENT_EVENT, [payload_of(Kind.INCIDENT_EVENT, values_of(stored))], [salt])
