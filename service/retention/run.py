"""Remove what is beyond its period and under no hold, in small transactions that a kill cannot harm.

A run is of one model. Each of its transactions removes some rows, buries their entries and adds to the
run's counts, or does nothing: a run that was killed goes on where its last transaction ended.
"""

import datetime as dt
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Select, and_, func, select, tuple_
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.erasure.rows import erase_explanations
from service.evidence.tombstones import Reason
from service.retention import certificates, holds, periods
from service.retention.pace import Pace, Sessions, T, patiently
from service.store import locks
from service.store.erasure.standing import Span
from service.store.evidence.proof import newest_checkpoint
from service.store.retention.tables import RetentionRun, RetentionVersion
from service.store.tables import Explanation, Model, Sample
from service.store.tenants import scope
from service.store.tenants.read import list_ids

_log: Final = structlog.get_logger(__name__)
_OF_SAMPLE: Final = and_(Sample.id == Explanation.sample_id, Sample.captured_at == Explanation.captured_at)
_EARLIEST: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Outcome(NamedTuple):
    """What became of one model's run."""

    run: uuid.UUID
    model: str
    explanations: int
    """Removed, from the run's beginning on."""
    certificate: uuid.UUID | None
    """None: there was nothing to remove, or it is not finished."""
    is_finished: bool


class _Position(NamedTuple):
    at: dt.datetime
    id: uuid.UUID


def run(sessions: Sessions, pace: Pace, *, stop: Callable[[], bool] = lambda: False) -> Sequence[Outcome]:
    """Remove what every tenant's models have beyond their periods; return what became of each run.

    ``stop`` is asked between two transactions; what is left is the next call's. The login must be one that
    may erase. Of rows that are in a lock's way for too long the run stays unfinished.
    """
    with sessions() as session:
        tenants = list_ids(session)
    outcomes: list[Outcome] = []
    for tenant in tenants:
        for job in _due(sessions, tenant):
            if stop():
                return outcomes
            outcomes.append(_run_model(sessions, job, pace, stop))
    return outcomes


class _Job(NamedTuple):
    tenant: uuid.UUID
    model: uuid.UUID
    version: uuid.UUID


def _due(sessions: Sessions, tenant: uuid.UUID) -> Sequence[_Job]:
    """Return the models that have a period, with the version that counts for each."""
    with sessions() as session:
        scope.set_tenant(session, tenant)
        models = select(Model).where(Model.tenant_id == tenant).order_by(Model.name)
        counting = _counting(session, session.scalars(models).all())
        return [
            _Job(tenant, model, one.id) for model, one in counting.items() if one.period_days is not None
        ]


def _counting(session: Session, models: Sequence[Model]) -> Mapping[uuid.UUID, RetentionVersion]:
    """Return the versions that count now, by model."""
    now = session.scalars(select(func.now())).one()
    return periods.periods_of(periods.list_in_force(session, now, scope.tenant_of(session)), models)


def _run_model(sessions: Sessions, job: _Job, pace: Pace, stop: Callable[[], bool]) -> Outcome:
    def in_transaction(work: Callable[[Session], T]) -> T:
        return patiently(sessions, job.tenant, pace, work)

    run_id = in_transaction(lambda session: _begin(session, job.model, job.version))
    after: _Position | None = None
    is_whole = False
    try:
        while not is_whole and not stop():
            after = in_transaction(lambda session: _remove(session, run_id, after, pace.rows))  # noqa: B023
            is_whole = after is None
            time.sleep(0 if is_whole else pace.pause_seconds)
        certificate = in_transaction(lambda session: _finish(session, run_id)) if is_whole else None
    except OperationalError as error:
        if not locks.is_locked(error):
            raise
        _log.warning("retention_run_waits", run=str(run_id))
        certificate, is_whole = None, False
    return in_transaction(lambda session: _outcome(session, run_id, certificate, is_finished=is_whole))


def _begin(session: Session, model: uuid.UUID, version: uuid.UUID) -> uuid.UUID:
    """Return the model's run that is not finished, else a new one."""
    unfinished = select(RetentionRun.id).where(
        RetentionRun.model_id == model, RetentionRun.finished_at.is_(None)
    )
    found = session.scalar(unfinished)
    if found is not None and _still_counts(session, session.get_one(RetentionRun, found)):
        return found
    if found is not None:
        _finish(session, found)
        session.flush()
    period = session.get_one(RetentionVersion, version).period_days
    signed = newest_checkpoint(session, scope.tenant_of(session))
    begun = RetentionRun(
        id=uuid.uuid4(),
        model_id=model,
        version_id=version,
        captured_before=session.scalars(select(func.now())).one() - dt.timedelta(days=period or 0),
        checkpoint_size=None if signed is None else signed.size,
    )
    session.add(begun)
    session.flush()
    return begun.id


def _still_counts(session: Session, begun: RetentionRun) -> bool:
    """Tell whether the run's period is the model's still: under a longer one nothing more may go."""
    model = session.scalars(select(Model).where(Model.id == begun.model_id)).one()
    version = _counting(session, [model]).get(model.id)
    return version is not None and version.id == begun.version_id


def _remove(session: Session, run_id: uuid.UUID, after: _Position | None, rows: int) -> _Position | None:
    """Remove the next rows; return where they ended, None when there are no more."""
    holds.freeze(session)
    begun = session.get_one(RetentionRun, run_id, with_for_update=True)
    if not _still_counts(session, begun):
        return None
    query = _due_rows(begun).order_by(Explanation.captured_at, Explanation.id).limit(rows)
    if after is not None:
        query = query.where(tuple_(Explanation.captured_at, Explanation.id) > tuple_(*after))
    found = session.execute(query).all()
    if not found:
        return None
    # A capture goes at once where it can: its flags would else be counted and logged anew in between.
    captures = {capture for _, _, capture in found if capture is not None}
    whole = session.execute(_due_rows(begun).where(Sample.capture_id.in_(captures))).all()
    going = {identity: at for at, identity, _ in (*found, *whole)}
    ids, span = list(going), Span(min(going.values()), max(going.values()))
    erased = erase_explanations(session, ids, reason=Reason.RETENTION, authority=run_id, within=span)
    # Those whose entries wait for a place in the log are the next run's.
    left = set(session.scalars(select(Explanation.id).where(Explanation.id.in_(ids))))
    times = [at for identity, at in going.items() if identity not in left]
    if times:
        begun.first_captured_at = min(*times, begun.first_captured_at or times[0])
        begun.last_captured_at = max(*times, begun.last_captured_at or times[0])
    removed = erased.counts()
    begun.removed = {name: begun.removed.get(name, 0) + count for name, count in removed.items()}
    return _Position(*found[-1][:2])


def _due_rows(begun: RetentionRun) -> Select[*tuple[Any, ...]]:
    """Return the query for time, id and capture of the explanations that the run removes."""
    query = select(Explanation.captured_at, Explanation.id, Sample.capture_id).join(Sample, _OF_SAMPLE)
    return query.where(*_beyond(begun), ~holds.covers_evidence())


def _beyond(begun: RetentionRun) -> tuple[ColumnElement[bool], ...]:
    return (
        Explanation.tenant_id == begun.tenant_id,
        Explanation.captured_at < begun.captured_before,
        Sample.model_id == begun.model_id,
    )


def _finish(session: Session, run_id: uuid.UUID) -> uuid.UUID | None:
    """End the run and issue its certificate; without one when nothing was removed."""
    begun = session.get_one(RetentionRun, run_id, with_for_update=True)
    begun.finished_at = session.scalars(select(func.now())).one()
    if not begun.removed.get("explanations"):
        return None
    document = _document(session, begun)
    return certificates.issue(
        session, reason=Reason.RETENTION, authority=run_id, document=document, model=begun.model_id
    )


def _document(session: Session, begun: RetentionRun) -> Mapping[str, Any]:
    version = session.get_one(RetentionVersion, begun.version_id)
    kept = select(func.count()).select_from(Explanation).join(Sample, _OF_SAMPLE).where(*_beyond(begun))
    total = session.scalars(kept).one()
    held = session.scalars(kept.where(holds.covers_evidence())).one()
    reaching = holds.list_reaching(session, begun.model_id, _EARLIEST, begun.captured_before)
    return {
        "retention_class": version.retention_class,
        "version_id": str(version.id),
        "period_days": version.period_days,
        "captured_before": _time(begun.captured_before),
        "first_captured_at": _time(begun.first_captured_at),
        "last_captured_at": _time(begun.last_captured_at),
        "removed": begun.removed,
        "explanations_held": held,
        "explanations_waiting": total - held,
        "holds_respected": [str(one) for one in reaching],
        "checkpoint_size_before": begun.checkpoint_size,
        "started_at": _time(begun.started_at),
    }


def _outcome(
    session: Session, run_id: uuid.UUID, certificate: uuid.UUID | None, *, is_finished: bool
) -> Outcome:
    begun = session.get_one(RetentionRun, run_id)
    model = session.scalars(select(Model.name).where(Model.id == begun.model_id)).one()
    return Outcome(run_id, model, int(begun.removed.get("explanations", 0)), certificate, is_finished)


def _time(at: dt.datetime | None) -> str | None:
    return None if at is None else at.astimezone(dt.UTC).isoformat()
