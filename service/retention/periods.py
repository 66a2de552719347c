"""Setting and reading for how long rows are kept. Whoever opened the session commits."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Select, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from service.evidence.entry import new_salt
from service.evidence.payloads import Kind, payload_of
from service.retention.classes import Bounds, PeriodError, RetentionClass, bounds_of
from service.retention.placing import find_model
from service.retention.records import OfReadings, problem_of
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.read.page import Page, Position, older_than
from service.store.retention.tables import Records, RemovalDecision, RetentionVersion
from service.store.tables import Model
from service.store.tenants import scope
from service.store.triage import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPeriod:
    """A period that somebody sets."""

    model: str | None
    """By its served name; None: of all models of the tenant that have none of their own."""
    records: Records | None = None
    """None: readings, and what stands on them. Others are of no model."""
    retention_class: RetentionClass
    period_days: int | None
    """None: rows are kept for good."""
    floor_days: int | None = None
    ceiling_days: int | None = None
    """Both narrower than the class's, or None."""
    in_force_from: dt.datetime | None = None
    """None: from now on."""
    reason: str


class View(NamedTuple):
    """A version, the name of its model, and what was said to it while it waited."""

    version: RetentionVersion
    model: str | None
    decision: RemovalDecision | None = None


def set_period(session: Session, asked: NewPeriod, actor: Actor) -> View:
    """Add the version and return it. Raises PeriodError and placing.UnknownModelError."""
    if asked.records is not None:
        _check_records(session, asked, asked.records)
    bounds = bounds_of(
        asked.retention_class, Bounds(asked.floor_days, asked.ceiling_days), asked.period_days
    )
    model = None if asked.model is None else find_model(session, asked.model)
    salt = new_salt()
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "model_id": model,
        "records": asked.records,
        "retention_class": asked.retention_class,
        "floor_days": bounds.floor,
        "ceiling_days": bounds.ceiling,
        "period_days": asked.period_days,
        "reason": asked.reason,
        **actor._asdict(),
        "log_salt": salt,
    }
    if asked.in_force_from is not None:
        if asked.in_force_from < session.scalars(select(func.now())).one():
            raise PeriodError(
                "in_force_from", "in_the_past", "give a time to come, or leave it out for now"
            )
        values["in_force_from"] = asked.in_force_from
    version = session.scalars(insert(RetentionVersion).values(**values).returning(RetentionVersion)).one()
    append(
        session, Kind.RETENTION_VERSION, [payload_of(Kind.RETENTION_VERSION, values_of(version))], [salt]
    )
    return View(version, asked.model)


def _check_records(session: Session, asked: NewPeriod, records: Records) -> None:
    """Raise PeriodError when records would be kept for a shorter time than what they tell about needs."""
    if asked.model is not None:
        raise PeriodError("records", "of_no_model", f"{records} are of no model; leave `model` out")
    counting = of_readings(session, session.scalars(select(func.now())).one(), scope.tenant_of(session))
    problem = problem_of(records, asked.period_days, counting)
    if problem is not None:
        raise PeriodError("period_days", "below_readings", problem)


def of_readings(session: Session, at: dt.datetime, tenant: uuid.UUID) -> Sequence[OfReadings]:
    """Return for how long readings of each of the tenant's models are kept; without models: of the next."""
    views = list_in_force(session, at, tenant)
    models = session.scalars(select(Model).where(Model.tenant_id == tenant)).all()
    counting = periods_of(views, models)
    if not models:
        whole = [one.version for one in views if one.version.records is None and one.model is None]
        found: Sequence[RetentionVersion | None] = whole or [None]
    else:
        found = [counting.get(model.id) for model in models]
    return [
        OfReadings(None, None) if one is None else OfReadings(one.floor_days, one.period_days)
        for one in found
    ]


def list_in_force(session: Session, at: dt.datetime, tenant: uuid.UUID | None = None) -> Sequence[View]:
    """Return the versions in force at ``at``: the tenant's, those of records, and of models, by name.

    One that waited is in force from when nobody objected in time, or somebody else confirmed it. Give
    ``tenant`` where the transaction meets those of others too.
    """
    version = RetentionVersion
    since = func.subtext_retention_from(version.id)
    query = (
        select(version, Model.name, RemovalDecision)
        .outerjoin(Model, Model.id == version.model_id)
        .outerjoin(RemovalDecision, RemovalDecision.version_id == version.id)
        .where(version.in_force_from <= at, since <= at)
        .ext(distinct_on(version.records, version.model_id))
        .order_by(version.records, version.model_id, since.desc(), version.set_at.desc(), version.id.desc())
    )
    if tenant is not None:
        query = query.where(version.tenant_id == tenant)
    found = [View(*row) for row in session.execute(query)]
    return sorted(
        found, key=lambda view: (view.model is not None, view.model or view.version.records or "")
    )


def periods_of(views: Sequence[View], models: Sequence[Model]) -> Mapping[uuid.UUID, RetentionVersion]:
    """Return by model the version that counts for its readings; without one they are kept for good."""
    own = {view.version.model_id: view.version for view in views if view.version.records is None}
    chosen = {model.id: own.get(model.id, own.get(None)) for model in models}
    return {model: version for model, version in chosen.items() if version is not None}


def get_version(session: Session, version_id: uuid.UUID) -> View | None:
    """Return one version, or None."""
    found = session.execute(_views().where(RetentionVersion.id == version_id)).one_or_none()
    return None if found is None else View(*found)


def _views() -> Select[RetentionVersion, str | None, RemovalDecision | None]:
    version = RetentionVersion
    return (
        select(version, Model.name, RemovalDecision)
        .outerjoin(Model, Model.id == version.model_id)
        .outerjoin(RemovalDecision, RemovalDecision.version_id == version.id)
    )


def list_versions(session: Session, after: Position | None, limit: int) -> Page[View]:
    """Return one page of all versions, the one that was set last first."""
    version = RetentionVersion
    query = _views()
    if after is not None:
        query = query.where(older_than(version.set_at, version.id, after))
    query = query.order_by(version.set_at.desc(), version.id.desc())
    views = [View(*row) for row in session.execute(query.limit(limit + 1))]
    page = views[:limit]
    last = page[-1].version if len(views) > limit else None
    return Page(page, Position(last.set_at, last.id) if last else None)
