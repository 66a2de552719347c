"""Requests that wait to be tested for being anomalies, and what came out of their window.

The caller commits, so that a window is stored with its tests and incidents, or not at all.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import Session

from service.incidents.lifecycle import ANOMALY_SEVERITY, FindingKind
from service.store import identity
from service.store.days import REQUEST_LASTS, is_sample_of_explanation
from service.store.tables import (
    AnomalyWindow,
    Base,
    Explanation,
    Incident,
    IncidentEvent,
    RequestTest,
    Sample,
)
from service.store.write import incident_repair
from service.store.write.evidence import Finding
from service.store.write.flags import Subject
from service.store.write.incident_repair import Page, Place, Recorded, Unrecorded
from service.store.write.readings import lock_captures
from service.store.write.window import NewTest, NewWindow, Untested

_LOCK_BITS: Final = 2**63 - 1


class Reader(NamedTuple):
    """The decoder whose readings are tested, and of which model."""

    model_id: uuid.UUID
    decoder_id: uuid.UUID


class Span(NamedTuple):
    """Of which requests to look for untested ones."""

    captured_after: dt.datetime
    stored_before: dt.datetime
    """A request with a row that was stored later is not complete yet."""


def try_own(session: Session, reader: Reader) -> bool:
    """Tell whether this transaction is the only one that tests what the decoder read, until it ends."""
    key = identity.model_id(f"anomaly windows/{reader.decoder_id}").int & _LOCK_BITS
    return bool(session.execute(select(func.pg_try_advisory_xact_lock(key))).scalar_one())


def last_closed_at(session: Session, reader: Reader) -> dt.datetime | None:
    """Return when the decoder's last window was closed; None before the first."""
    query = select(func.max(AnomalyWindow.closed_at)).where(AnomalyWindow.decoder_id == reader.decoder_id)
    return session.scalar(query)


def list_untested(session: Session, reader: Reader, span: Span) -> list[Untested]:
    """Return the complete requests that were never tested, by their first capture.

    Rows that only the screen chose were chosen for being unusual, so they are no basis of a test.
    """
    unit = (Sample.capture_id, Sample.request_id, Sample.layer)
    is_usable = and_(Sample.baseline_probability > 0, Explanation.anomaly_p_value.is_not(None))
    first = func.min(Explanation.captured_at)
    is_tested = exists().where(
        RequestTest.capture_id == Sample.capture_id,
        RequestTest.model_id == reader.model_id,
        RequestTest.decoder_id == reader.decoder_id,
        RequestTest.layer == Sample.layer,
    )
    query = (
        select(
            *unit,
            _in_order(Sample.position).filter(is_usable),
            _in_order(Explanation.anomaly_p_value).filter(is_usable),
            first,
            func.max(Explanation.captured_at),
        )
        .join(Sample, is_sample_of_explanation())
        .where(
            Explanation.captured_at >= span.captured_after,
            Sample.captured_at >= span.captured_after - REQUEST_LASTS,
            Explanation.decoder_id == reader.decoder_id,
            Sample.model_id == reader.model_id,
            Sample.capture_id.is_not(None),
            ~is_tested,
        )
        .group_by(*unit)
        .having(func.max(Sample.stored_at) <= span.stored_before, func.bool_or(is_usable))
        .order_by(first, Sample.capture_id, Sample.layer)
    )
    return [Untested(*row) for row in session.execute(query)]


def _in_order(column: Any) -> Any:
    return func.array_agg(aggregate_order_by(column, Sample.position, Sample.id))


def store_windows(
    session: Session, reader: Reader, windows: Sequence[NewWindow], *, anomaly_p_value: float | None
) -> list[Recorded]:
    """Insert the windows with their tests, and open an incident for each discovery or add to it.

    An incident that cannot be written costs no test; see `list_unrecorded`.
    ``anomaly_p_value`` says which positions belong to an incident's evidence, see `Incident`.
    """
    found = []
    for window in windows:
        row = _window_row(window, reader)
        session.execute(insert(AnomalyWindow).values(row))
        tests = [_test_row(one, reader, row["id"]) for one in window.tests]
        session.execute(insert(RequestTest), tests)
        found += [
            Unrecorded(_subject(one.request, reader), [_finding(test, row)])
            for one, test in zip(window.tests, tests, strict=True)
            if one.is_discovery
        ]
    lock_captures(session, [subject for subject, _ in found])
    return incident_repair.try_to_record(session, found, anomaly_p_value=anomaly_p_value)


def _subject(request: Untested, reader: Reader) -> Subject:
    return Subject(
        reader.model_id, reader.decoder_id, request.capture_id, request.request_id, request.layer
    )


def _window_row(window: NewWindow, reader: Reader) -> dict[str, Any]:
    starts = [one.request.first_captured_at for one in window.tests]
    return {
        "id": uuid.uuid4(),
        "decoder_id": reader.decoder_id,
        "reference_digest": window.reference_digest,
        "fdr": window.fdr,
        "requests": len(window.tests),
        "discoveries": sum(one.is_discovery for one in window.tests),
        "threshold": window.threshold,
        "started_at": min(starts),
        "ended_at": max(starts),
        "closed_at": window.closed_at,
    }


def _test_row(test: NewTest, reader: Reader, window_id: uuid.UUID) -> dict[str, Any]:
    request = test.request
    subject = _subject(request, reader)
    return {
        **subject._asdict(),
        "id": identity.request_test_id(
            reader.model_id, request.capture_id, request.layer, reader.decoder_id
        ),
        "window_id": window_id,
        "p_value": test.p_value,
        "q_value": test.q_value,
        "rank": test.rank,
        "calibration_n": test.calibration_n,
        "positions": list(test.positions),
        "row_p_values": list(test.row_p_values),
        "is_discovery": test.is_discovery,
        "first_captured_at": request.first_captured_at,
        "last_captured_at": request.last_captured_at,
    }


def _finding(test: Mapping[str, Any], window: Mapping[str, Any]) -> Finding:
    rows = zip(test["positions"], test["row_p_values"], strict=True)
    return Finding(
        kind=FindingKind.ANOMALY,
        concept=None,
        severity=ANOMALY_SEVERITY,
        first_captured_at=test["first_captured_at"],
        last_captured_at=test["last_captured_at"],
        figures={
            **{name: test[name] for name in ("p_value", "q_value", "rank", "calibration_n")},
            **{name: window[name] for name in ("fdr", "requests", "reference_digest")},
            "window_id": str(window["id"]),
            "window_started_at": window["started_at"].isoformat(),
            "window_ended_at": window["ended_at"].isoformat(),
            "rows": [{"position": position, "p_value": p_value} for position, p_value in rows],
        },
    )


def list_unrecorded(
    session: Session, reader: Reader, within: dt.timedelta, before: Place | None = None
) -> Page:
    """Return discoveries that were made within the time and that no incident tells.

    ``before`` is the last place of the page before, as in `incident_repair.list_unrecorded`.
    """
    told = exists().where(
        Incident.capture_id == RequestTest.capture_id,
        Incident.request_id == RequestTest.request_id,
        Incident.model_id == RequestTest.model_id,
        Incident.decoder_id == RequestTest.decoder_id,
        Incident.layer == RequestTest.layer,
        IncidentEvent.incident_id == Incident.id,
        IncidentEvent.findings.contains([{"kind": FindingKind.ANOMALY.value}]),
    )
    query = (
        select(RequestTest, AnomalyWindow)
        .join(AnomalyWindow, AnomalyWindow.id == RequestTest.window_id)
        .where(
            RequestTest.model_id == reader.model_id,
            RequestTest.decoder_id == reader.decoder_id,
            RequestTest.is_discovery,
            RequestTest.tested_at > func.now() - within,
            ~told,
        )
        .order_by(RequestTest.tested_at.desc(), RequestTest.id.desc())
        .limit(incident_repair.REPAIRED_AT_ONCE)
    )
    if before is not None:
        query = query.where(tuple_(RequestTest.tested_at, RequestTest.id) < tuple_(*before))
    rows = session.execute(query).all()
    unrecorded = [
        Unrecorded(
            Subject(test.model_id, test.decoder_id, test.capture_id, test.request_id, test.layer),
            [_finding(_values(test), _values(window))],
        )
        for test, window in rows
    ]
    return incident_repair.page_of(unrecorded, [Place(test.tested_at, test.id) for test, _ in rows])


def _values(row: Base) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__table__.columns.keys()}  # noqa: SIM118 - no mapping
