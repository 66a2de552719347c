"""Remove records of the audit itself that are beyond their period and under no hold, in small transactions.

A run is of one kind of records of a tenant, and resumed like those of readings. Of the access log it
removes no entry that is younger than the oldest reading that is there, which it may tell about.
"""

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import ColumnElement, delete, exists, func, or_, select, tuple_
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.evidence.payloads import Kind
from service.evidence.tombstones import Reason
from service.retention import certificates, holds, periods
from service.retention.pace import Pace, Sessions, patiently
from service.store import locks
from service.store.access.tables import AccessEntry
from service.store.base import values_of
from service.store.canary.tables import CanaryRun
from service.store.erasure.bury import bury, find_places
from service.store.evidence.proof import newest_checkpoint
from service.store.evidence.rows import row_of
from service.store.retention.tables import LegalHold, Records, RetentionRun, RetentionVersion
from service.store.tables import (
    CanaryFlag,
    CanaryReading,
    Explanation,
    Incident,
    IncidentEvent,
    WebhookDelivery,
    WebhookMessage,
)
from service.store.tenants import scope
from service.store.tenants.read import list_ids

_log: Final = structlog.get_logger(__name__)


class Outcome(NamedTuple):
    """What became of one run."""

    run: uuid.UUID
    records: Records
    removed: int
    """Rows, from the run's beginning on."""
    certificate: uuid.UUID | None
    """None: there was nothing to remove, or it is not finished."""
    is_finished: bool


class _Part(NamedTuple):
    """What one transaction removed."""

    counts: Mapping[str, int]
    last: tuple[dt.datetime, uuid.UUID] | None = None
    """Of entries: the last that was looked at, removed or not. None: there are no more."""


def run(sessions: Sessions, pace: Pace, *, stop: Callable[[], bool] = lambda: False) -> Sequence[Outcome]:
    """Remove what every tenant's records have beyond their periods; return what became of each run.

    As of readings: ``stop`` is asked between two transactions, and the login must be one that may erase.
    """
    with sessions() as session:
        tenants = list_ids(session)
    outcomes: list[Outcome] = []
    for tenant in tenants:
        for version in patiently(sessions, tenant, pace, _counting):
            if stop():
                return outcomes
            outcomes.append(_run(sessions, tenant, version, pace, stop))
    return outcomes


def _counting(session: Session) -> Sequence[uuid.UUID]:
    """Return the versions in force of the tenant's records that end some time."""
    now = session.scalars(select(func.now())).one()
    views = periods.list_in_force(session, now, scope.tenant_of(session))
    return [
        one.version.id
        for one in views
        if one.version.records is not None and one.version.period_days is not None
    ]


def _run(
    sessions: Sessions, tenant: uuid.UUID, version: uuid.UUID, pace: Pace, stop: Callable[[], bool]
) -> Outcome:
    run_id = patiently(sessions, tenant, pace, lambda session: _begin(session, version))
    is_whole, certificate = False, None
    after: tuple[dt.datetime, uuid.UUID] | None = None
    try:
        while not is_whole and not stop():
            after = patiently(sessions, tenant, pace, lambda session: _remove(session, run_id, after, pace))  # noqa: B023
            is_whole = after is None
            time.sleep(0 if is_whole else pace.pause_seconds)
        if is_whole:
            certificate = patiently(sessions, tenant, pace, lambda session: _finish(session, run_id))
    except OperationalError as error:
        if not locks.is_locked(error):
            raise
        _log.warning("retention_run_waits", run=str(run_id))
        is_whole = False
    return patiently(
        sessions, tenant, pace, lambda session: _outcome(session, run_id, certificate, is_finished=is_whole)
    )


def _begin(session: Session, version_id: uuid.UUID) -> uuid.UUID:
    """Return the run of the version that is not finished, else a new one."""
    tenant = scope.tenant_of(session)
    version = session.get_one(RetentionVersion, version_id)
    unfinished = select(RetentionRun).where(
        RetentionRun.tenant_id == tenant,
        RetentionRun.records == version.records,
        RetentionRun.finished_at.is_(None),
    )
    found = session.scalars(unfinished).one_or_none()
    if found is not None and found.version_id == version_id:
        return found.id
    if found is not None:
        _finish(session, found.id)
        session.flush()
    signed = newest_checkpoint(session, tenant)
    now = session.scalars(select(func.now())).one()
    begun = RetentionRun(
        id=uuid.uuid4(),
        records=version.records,
        version_id=version_id,
        captured_before=now - dt.timedelta(days=version.period_days or 0),
        checkpoint_size=None if signed is None else signed.size,
    )
    session.add(begun)
    session.flush()
    return begun.id


def _remove(
    session: Session, run_id: uuid.UUID, after: tuple[dt.datetime, uuid.UUID] | None, pace: Pace
) -> tuple[dt.datetime, uuid.UUID] | None:
    """Remove the next rows; return where they ended, None when there are no more."""
    holds.freeze(session)
    begun = session.get_one(RetentionRun, run_id, with_for_update=True)
    if begun.version_id not in _counting(session):
        return None
    part = _REMOVERS[Records(str(begun.records))](session, begun, after, pace.rows)
    added = {name: begun.removed.get(name, 0) + count for name, count in part.counts.items()}
    begun.removed = {**begun.removed, **added}
    return part.last


def _remove_entries(
    session: Session, begun: RetentionRun, after: tuple[dt.datetime, uuid.UUID] | None, rows: int
) -> _Part:
    """Delete entries of the access log and bury them; those that wait for a place are the next run's."""
    entry = AccessEntry
    oldest = session.scalar(
        select(Explanation.captured_at)
        .where(Explanation.tenant_id == begun.tenant_id)
        .order_by(Explanation.captured_at)
        .limit(1)
    )
    before = begun.captured_before if oldest is None else min(begun.captured_before, oldest)
    query = select(entry).where(
        entry.tenant_id == begun.tenant_id, entry.at < before, ~_may_be_held(entry, entry.at)
    )
    if after is not None:
        query = query.where(tuple_(entry.at, entry.id) > tuple_(*after))
    query = query.order_by(entry.at, entry.id).limit(rows).with_for_update()
    found = [values_of(one) for one in session.scalars(query)]
    if not found:
        return _Part({})
    committed = {one["id"]: row_of(Kind.ACCESS, one, at="at").commitments for one in found}
    places = find_places(session, begun.tenant_id, [each for one in committed.values() for each in one])
    going = [one for one, of_it in committed.items() if places.waiting.isdisjoint(of_it)]
    with _named(session, begun):
        session.execute(
            delete(entry).where(entry.id.in_(going)), execution_options={"synchronize_session": False}
        )
    known = (places.known[each] for one in going for each in committed[one] if each in places.known)
    buried = bury(session, known, reason=Reason.RETENTION, authority=begun.id)
    return _Part({"access_entries": len(going), "log_entries": buried}, (found[-1]["at"], found[-1]["id"]))


def _remove_canaries(
    session: Session, begun: RetentionRun, _after: tuple[dt.datetime, uuid.UUID] | None, rows: int
) -> _Part:
    tables: Mapping[str, tuple[Any, ColumnElement[bool]]] = {
        "canary_readings": (CanaryReading.captured_at, ~holds.covers_canaries(CanaryReading)),
        "canary_flags": (CanaryFlag.stored_at, ~holds.covers_canaries(CanaryFlag)),
        "canary_runs": (CanaryRun.ended_at, ~_may_be_held(CanaryRun, CanaryRun.ended_at)),
    }
    with _named(session, begun):
        counts = {name: _delete(session, begun, at, may_go, rows) for name, (at, may_go) in tables.items()}
    return _Part(counts, _ANYWHERE if any(counts.values()) else None)


def _remove_messages(
    session: Session, begun: RetentionRun, _after: tuple[dt.datetime, uuid.UUID] | None, rows: int
) -> _Part:
    """Delete messages with their deliveries, but for those that may yet be sent."""
    message, delivery = WebhookMessage, WebhookDelivery
    waits = exists(
        select(delivery.event_id)
        .where(delivery.event_id == message.event_id, delivery.state == "pending")
        .correlate(message)
    )
    is_held = exists(
        select(IncidentEvent.id)
        .join(Incident, Incident.id == IncidentEvent.incident_id)
        .where(IncidentEvent.id == message.event_id, func.subtext_incident_may_be_held(Incident.id))
        .correlate(message)
    )
    going = session.scalars(
        select(message.event_id)
        .where(
            message.tenant_id == begun.tenant_id,
            message.created_at < begun.captured_before,
            ~waits,
            ~is_held,
        )
        .limit(rows)
        .with_for_update(of=message)
    ).all()
    deliveries = session.scalars(
        delete(delivery).where(delivery.event_id.in_(going)).returning(delivery.event_id)
    ).all()
    session.execute(delete(message).where(message.event_id.in_(going)))
    counts = {"webhook_messages": len(going), "webhook_deliveries": len(deliveries)}
    return _Part(counts, _ANYWHERE if going else None)


@contextmanager
def _named(session: Session, begun: RetentionRun) -> Iterator[None]:
    """Name the run to the triggers, which let rows go by nothing else."""
    session.execute(select(func.set_config("subtext.retaining", str(begun.id), True)))  # noqa: FBT003
    yield
    session.execute(select(func.set_config("subtext.retaining", "", True)))  # noqa: FBT003


def _delete(session: Session, begun: RetentionRun, at: Any, may_go: ColumnElement[bool], rows: int) -> int:
    table = at.class_
    key = tuple_(*table.__table__.primary_key.columns)
    due = select(*table.__table__.primary_key.columns).where(
        table.tenant_id == begun.tenant_id, at < begun.captured_before, may_go
    )
    gone = delete(table).where(key.in_(due.limit(rows))).returning(table.tenant_id)
    return len(session.execute(gone, execution_options={"synchronize_session": False}).all())


def _may_be_held(table: Any, at: Any) -> ColumnElement[bool]:
    """Return the condition that a hold in force may be about what the row tells of.

    What a hold covers was captured before anybody read it, so all since the hold's beginning stays: one too
    many, and none too few.
    """
    hold = LegalHold
    return exists(
        select(hold.id)
        .where(
            hold.tenant_id == table.tenant_id,
            holds.is_in_force(hold),
            or_(hold.captured_from.is_(None), at >= hold.captured_from),
        )
        .correlate(table)
    )


_ANYWHERE: Final = (dt.datetime.min.replace(tzinfo=dt.UTC), uuid.UUID(int=0))
"""What is looked for anew each time: whatever is found goes."""
_REMOVERS: Final = {
    Records.ACCESS_LOG: _remove_entries,
    Records.CANARIES: _remove_canaries,
    Records.WEBHOOKS: _remove_messages,
}


def _finish(session: Session, run_id: uuid.UUID) -> uuid.UUID | None:
    """End the run and issue its certificate; without one when nothing was removed."""
    begun = session.get_one(RetentionRun, run_id, with_for_update=True)
    begun.finished_at = session.scalars(select(func.now())).one()
    if not any(begun.removed.values()):
        return None
    version = session.get_one(RetentionVersion, begun.version_id)
    reaching = holds.list_reaching(
        session, None, dt.datetime(1970, 1, 1, tzinfo=dt.UTC), begun.captured_before
    )
    document = {
        "records": begun.records,
        "retention_class": version.retention_class,
        "version_id": str(version.id),
        "period_days": version.period_days,
        "before": begun.captured_before.astimezone(dt.UTC).isoformat(),
        "removed": begun.removed,
        "holds_respected": [str(one) for one in reaching],
        "checkpoint_size_before": begun.checkpoint_size,
        "started_at": begun.started_at.astimezone(dt.UTC).isoformat(),
    }
    return certificates.issue(session, reason=Reason.RETENTION, authority=run_id, document=document)


def _outcome(
    session: Session, run_id: uuid.UUID, certificate: uuid.UUID | None, *, is_finished: bool
) -> Outcome:
    begun = session.get_one(RetentionRun, run_id)
    removed = sum(count for name, count in begun.removed.items() if name != "log_entries")
    return Outcome(run_id, Records(str(begun.records)), removed, certificate, is_finished)
