"""How retention stands: what is beyond its period and is still there, and how the last run ended."""

import datetime as dt
from typing import NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from service.retention import holds, periods
from service.store.retention.tables import RetentionRun
from service.store.tables import Explanation, Model, Sample
from service.store.tenants import scope


class Overdue(NamedTuple):
    """How retention stands of the transaction's tenant."""

    beyond: dt.timedelta
    """How far the oldest row that no hold covers is beyond its period; 0 where none is."""
    last_run_at: dt.datetime | None
    """When the last run ended that was finished."""
    unfinished: int
    """Runs that have begun and are not finished."""


def measure(session: Session, now: dt.datetime) -> Overdue:
    """Return how retention stands at ``now``."""
    tenant = scope.tenant_of(session)
    models = session.scalars(select(Model).where(Model.tenant_id == tenant)).all()
    counting = periods.periods_of(periods.list_in_force(session, now, tenant), models)
    of_sample = and_(Sample.id == Explanation.sample_id, Sample.captured_at == Explanation.captured_at)
    beyond = dt.timedelta()
    for model, version in counting.items():
        if version.period_days is None:
            continue
        before = now - dt.timedelta(days=version.period_days)
        oldest = session.scalar(
            select(Explanation.captured_at)
            .join(Sample, of_sample)
            .where(
                Explanation.tenant_id == tenant,
                Explanation.captured_at < before,
                Sample.model_id == model,
                ~holds.covers_evidence(),
            )
            .order_by(Explanation.captured_at)
            .limit(1)
        )
        if oldest is not None:
            beyond = max(beyond, before - oldest)
    runs = select(
        func.max(RetentionRun.finished_at), func.count().filter(RetentionRun.finished_at.is_(None))
    ).where(RetentionRun.tenant_id == tenant)
    return Overdue(beyond, *session.execute(runs).one())
