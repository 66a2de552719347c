"""Write incidents never at the evidence's cost, and find those that could not be. The caller commits.

Incidents are changed by people too, and by the service's login: whatever is wrong there must cost no
explanation and no flag.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.incidents.lifecycle import FindingKind
from service.store.tables import Flag, Incident, IncidentEvent
from service.store.write.evidence import Finding
from service.store.write.flags import FIGURES, Subject
from service.store.write.incidents import IncidentChange, record_findings

REPAIRED_WITHIN: Final = dt.timedelta(days=1)
"""Of flags that were raised earlier, an incident is not looked for any more."""
REPAIRED_AT_ONCE: Final = 200
"""Flags, or discoveries, on one page of a look."""
_LOCK_TIMEOUT: Final = "500ms"
"""Far longer than a triage holds an incident, far shorter than a batch may take."""
_LOCKED: Final = frozenset({"55P03", "57014"})  # SQLSTATE lock_not_available, query_canceled


class Recorded(NamedTuple):
    """What became of one capture's findings."""

    changes: list[IncidentChange]
    error: str | None
    """The type of what kept them from being written, None when they are."""


class Unrecorded(NamedTuple):
    """Findings on one capture that no event of an incident tells."""

    subject: Subject
    findings: list[Finding]


def try_to_record(
    session: Session, found: Iterable[Unrecorded], *, anomaly_p_value: float | None
) -> list[Recorded]:
    """Record each as `record_findings` does, in a savepoint: when that fails, nothing else is lost.

    Incidents that somebody has locked are waited for once and not long, for the caller holds the locks of
    captures meanwhile: what is left of them then fails untried, and is there to be repaired.
    Raises what ends the connection, for then the transaction is lost as a whole.
    """
    recorded = []
    locked_by = None
    for subject, findings in found:
        if locked_by is not None and findings:
            recorded.append(Recorded([], locked_by))
            continue
        try:
            changes = _record(session, subject, findings, anomaly_p_value)
        except Exception as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise
            recorded.append(Recorded([], type(error).__name__))
            if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _LOCKED:
                locked_by = type(error).__name__
        else:
            recorded.append(Recorded(changes, None))
    return recorded


def _record(
    session: Session, subject: Subject, findings: Sequence[Finding], anomaly_p_value: float | None
) -> list[IncidentChange]:
    if not findings:
        return []
    with session.begin_nested():
        timeout = session.execute(select(func.current_setting("lock_timeout"))).scalar_one()
        _set_lock_timeout(session, _LOCK_TIMEOUT)
        changes = record_findings(session, subject, findings, anomaly_p_value=anomaly_p_value)
        # A savepoint that fails takes the setting back; one that is released would keep it.
        _set_lock_timeout(session, timeout)
    return changes


def _set_lock_timeout(session: Session, timeout: str) -> None:
    session.execute(select(func.set_config("lock_timeout", timeout, True)))  # noqa: FBT003


class Place(NamedTuple):
    """A row's place in the order of time, and within one time of its id."""

    at: dt.datetime
    id: uuid.UUID


class Page(NamedTuple):
    """What no incident tells on one page of a look, the newest first."""

    unrecorded: list[Unrecorded]
    last: Place | None
    """Where the next page goes on; None on the last page."""


def list_unrecorded(
    session: Session,
    model_id: uuid.UUID,
    decoder_id: uuid.UUID,
    within: dt.timedelta,
    before: Place | None = None,
) -> Page:
    """Return what this decoder raised within the time and no incident tells, `REPAIRED_AT_ONCE` flags.

    ``before`` is the last place of the page before. A page costs two look-ups a flag that was raised within
    the time and before that.
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
        .order_by(Flag.created_at.desc(), Flag.id.desc())
        .limit(REPAIRED_AT_ONCE)
    )
    if before is not None:
        query = query.where(tuple_(Flag.created_at, Flag.id) < tuple_(*before))
    flags = session.scalars(query).all()
    places = [Place(flag.created_at, flag.id) for flag in flags]
    return page_of(list(_by_subject(flags)), places)


def page_of(unrecorded: list[Unrecorded], places: Sequence[Place]) -> Page:
    """Return the page of rows at these places; one that is not full is the last."""
    return Page(unrecorded, places[-1] if len(places) == REPAIRED_AT_ONCE else None)


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
