"""Open a capture's incident for what was found on it, and let it grow. The caller commits.

Whoever finds more than flags, such as anomalies, calls `record_findings` with findings of its own kind, in
the transaction that stores them.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.incidents.lifecycle import EventKind, State, highest
from service.store import identity
from service.store.evidence.events import add_event
from service.store.tables import Incident, IncidentEvent, WebhookMessage
from service.store.write.evidence import Finding
from service.store.write.flags import Subject


class IncidentChange(NamedTuple):
    """What one transaction did to one incident."""

    id: uuid.UUID
    kind: EventKind
    severity: str
    """The incident's after it."""


def record_findings(
    session: Session, subject: Subject, findings: Sequence[Finding], *, anomaly_p_value: float | None
) -> list[IncidentChange]:
    """Open the subject's incident or add to it; return what was an event, which known findings are not.

    A finding is known by its kind and concept, so a redelivery changes nothing. A new one on a dismissed
    incident opens it again: whoever dismissed it had not seen that evidence. The caller must hold the
    capture's lock. ``anomaly_p_value`` says which positions belong to the evidence, see `Incident`.
    """
    if not findings:
        return []
    incident_id = identity.incident_id(subject.model_id, subject.capture, subject.layer, subject.decoder_id)
    if _insert(session, incident_id, subject, findings, anomaly_p_value):
        return [_opened(session, incident_id, findings)]
    # Triage changes the same row and does not know the capture's lock.
    locked = select(Incident).where(Incident.id == incident_id).with_for_update()
    incident = session.execute(locked.execution_options(populate_existing=True)).scalar_one()
    history = _history(session, incident_id)
    new = [found for found in findings if (found.kind, found.concept) not in history.known]
    return _grow(session, incident, findings, new, after=history.version)


def _insert(
    session: Session,
    incident_id: uuid.UUID,
    subject: Subject,
    findings: Sequence[Finding],
    anomaly_p_value: float | None,
) -> bool:
    first, last = _span(findings)
    row = {
        "id": incident_id,
        **subject._asdict(),
        "severity": highest(*(found.severity for found in findings)),
        "state": State.OPEN,
        "version": 1,
        "anomaly_p_value": anomaly_p_value,
        "first_captured_at": first,
        "last_captured_at": last,
    }
    statement = insert(Incident).values(row).on_conflict_do_nothing().returning(Incident.id)
    return session.execute(statement).scalar_one_or_none() is not None


def _opened(session: Session, incident_id: uuid.UUID, findings: Sequence[Finding]) -> IncidentChange:
    severity = highest(*(found.severity for found in findings))
    _add_event(
        session,
        incident_id,
        version=1,
        kind=EventKind.OPENED,
        from_state=None,
        to_state=State.OPEN,
        severity=severity,
        findings=findings,
    )
    return IncidentChange(incident_id, EventKind.OPENED, severity)


class _History(NamedTuple):
    known: set[tuple[Any, Any]]
    """Kind and concept of every finding that was told."""
    version: int
    """The highest of an event."""


def _history(session: Session, incident_id: uuid.UUID) -> _History:
    query = select(IncidentEvent.version, IncidentEvent.findings).where(
        IncidentEvent.incident_id == incident_id
    )
    events = session.execute(query).all()
    # The table takes any JSON: what is no finding tells of none.
    found = [one for _, findings in events if isinstance(findings, list) for one in findings]
    known = {(one.get("kind"), one.get("concept")) for one in found if isinstance(one, dict)}
    return _History(known, max((version for version, _ in events), default=0))


def _grow(
    session: Session,
    incident: Incident,
    findings: Sequence[Finding],
    new: Sequence[Finding],
    *,
    after: int,
) -> list[IncidentChange]:
    """Widen the incident's span by every finding; only new ones are an event with a version of its own.

    That is above ``after`` too: events can be added by whoever may change no version.
    """
    first, last = _span(findings)
    changes: dict[str, Any] = {
        "first_captured_at": min(incident.first_captured_at, first),
        "last_captured_at": max(incident.last_captured_at, last),
        "updated_at": func.now(),
    }
    change = None
    if new:
        is_dismissed = incident.state == State.DISMISSED
        kind = EventKind.REOPENED if is_dismissed else EventKind.EVIDENCE
        state = State.OPEN if is_dismissed else State(incident.state)
        severity = highest(incident.severity, *(found.severity for found in new))
        version = max(incident.version, after) + 1
        changes |= {"severity": severity, "state": state, "version": version}
        if is_dismissed:
            changes["labels"] = {}  # they were given without this finding
        _add_event(
            session,
            incident.id,
            version=version,
            kind=kind,
            from_state=incident.state,
            to_state=state,
            severity=severity,
            findings=new,
        )
        change = IncidentChange(incident.id, kind, severity)
    session.execute(update(Incident).where(Incident.id == incident.id).values(changes))
    return [] if change is None else [change]


def _add_event(
    session: Session, incident_id: uuid.UUID, *, version: int, findings: Sequence[Finding], **event: Any
) -> None:
    event_id = identity.incident_event_id(incident_id, version)
    row = {
        "id": event_id,
        "incident_id": incident_id,
        "version": version,
        "findings": [
            {"kind": found.kind, "concept": found.concept, "severity": found.severity, **found.figures}
            for found in findings
        ],
        **event,
    }
    add_event(session, row)
    session.execute(insert(WebhookMessage).values(event_id=event_id))


def _span(findings: Sequence[Finding]) -> tuple[dt.datetime, dt.datetime]:
    return (
        min(found.first_captured_at for found in findings),
        max(found.last_captured_at for found in findings),
    )
