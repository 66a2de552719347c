"""Write incidents never at the evidence's cost, and find those that could not be. The caller commits.

Incidents are changed by people too, and by the service's login: whatever is wrong there must cost no
explanation and no flag.
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.incidents.lifecycle import FindingKind
from service.store.tables import Flag, Incident, IncidentEvent
from service.store.write.evidence import Finding
from service.store.write.flags import FIGURES, Subject
from service.store.write.incidents import IncidentChange, record_findings

REPAIRED_WITHIN: Final = dt.timedelta(days=1)
"""Of flags that were raised earlier, an incident is not looked for any more."""
_AT_ONCE: Final = 200


class Recorded(NamedTuple):
    """What became of one capture's findings."""

    changes: list[IncidentChange]
    error: str | None
    """The type of what kept them from being written, None when they are."""


def try_to_record(
    session: Session, subject: Subject, findings: Sequence[Finding], *, anomaly_p_value: float | None
) -> Recorded:
    """Record the findings as `record_findings` does, in a savepoint: when that fails, nothing else is lost.

    Raises what ends the connection, for then the transaction is lost as a whole.
    """
    try:
        with session.begin_nested():
            changes = record_findings(session, subject, findings, anomaly_p_value=anomaly_p_value)
    except Exception as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        return Recorded([], type(error).__name__)
    return Recorded(changes, None)


class Unrecorded(NamedTuple):
    """Flags of one capture that no event of an incident tells."""

    subject: Subject
    findings: list[Finding]


def list_unrecorded(
    session: Session, model_id: uuid.UUID, decoder_id: uuid.UUID, within: dt.timedelta
) -> list[Unrecorded]:
    """Return what this decoder raised within the time and no incident tells, the newest 200 flags.

    It costs two look-ups a flag that was raised within the time.
    """
    query = (
        select(Flag)
        .where(
            Flag.model_id == model_id,
            Flag.decoder_id == decoder_id,
            Flag.created_at > func.now() - within,
            or_(
                and_(Flag.capture_id.is_not(None), ~_is_told(Incident.capture_id == Flag.capture_id)),
                and_(Flag.capture_id.is_(None), ~_is_told(Incident.capture_id.is_(None))),
            ),
        )
        .order_by(Flag.created_at.desc(), Flag.id)
        .limit(_AT_ONCE)
    )
    return list(_by_subject(session.scalars(query).all()))


def _is_told(is_same_capture: ColumnElement[bool]) -> ColumnElement[bool]:
    told = func.jsonb_build_object("kind", FindingKind.FLAG.value, "concept", Flag.concept)
    return exists().where(
        is_same_capture,
        Incident.request_id == Flag.request_id,
        Incident.model_id == Flag.model_id,
        Incident.decoder_id == Flag.decoder_id,
        Incident.layer == Flag.layer,
        IncidentEvent.incident_id == Incident.id,
        IncidentEvent.findings.contains(func.jsonb_build_array(told)),
    )


def _by_subject(flags: Sequence[Flag]) -> Iterator[Unrecorded]:
    def subject_of(flag: Flag) -> Subject:
        return Subject(flag.model_id, flag.decoder_id, flag.capture_id, flag.request_id, flag.layer)

    for subject, found in groupby(sorted(flags, key=lambda one: str(subject_of(one))), subject_of):
        yield Unrecorded(subject, [_finding(flag) for flag in found])


def _finding(flag: Flag) -> Finding:
    """Return the flag's finding with the figures that it has by now."""
    return Finding(
        kind=FindingKind.FLAG,
        concept=flag.concept,
        severity=flag.severity,
        first_captured_at=flag.first_captured_at,
        last_captured_at=flag.last_captured_at,
        figures={name: getattr(flag, name) for name in FIGURES},
    )
