"""Note which configurations a process runs. The caller commits.

Reports may come twice and late: each stands for the moment at which it was made, by its age.
"""

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import cast, func, insert, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSON, TEXT
from sqlalchemy.dialects.postgresql import insert as insert_unless_there
from sqlalchemy.orm import Session

from service.store import identity
from service.store.configuration import period
from service.store.configuration.period import Known
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.tenants.scope import COLUMN_DEFAULT
from subtext_sidecar.contract.configuration import MAX_CONTENT_BYTES, Configuration, Kind, digest
from subtext_sidecar.contract.counters import Hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process said that it runs."""

    source: str
    hop: Hop
    model: str
    layer: int | None
    configuration: Configuration
    age_seconds: float = 0.0
    """How long ago it was said."""


def note(session: Session, reports: Sequence[Report]) -> dict[tuple[Kind, str], int]:
    """Store versions and contents that are new, and bring the sources' periods up to date.

    Returns the versions' ids by kind and digest. Raises ValueError for a content with another digest.
    """
    if not reports:
        return {}
    # One source after the other and in one order for all workers: of two that hear the same one, the second
    # sees what the first wrote, and neither waits for the other.
    for source in sorted({report.source for report in reports}):
        session.execute(select(func.pg_advisory_xact_lock(_key(source))))
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    ids = version_ids(session, {_name(report) for report in reports})
    _add_contents(session, {ids[_name(report)]: report.configuration for report in reports})
    for report in sorted(reports, key=lambda one: -one.age_seconds):
        _follow(session, report, ids[_name(report)], now - dt.timedelta(seconds=report.age_seconds))
    return ids


def end(session: Session, source: str) -> None:
    """Say that a source stops now, and with it what it ran."""
    session.execute(select(func.pg_advisory_xact_lock(_key(source))))
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    session.execute(
        update(ConfigurationPeriod)
        .where(
            ConfigurationPeriod.tenant_id == COLUMN_DEFAULT,
            ConfigurationPeriod.source == source,
            ConfigurationPeriod.ended_at.is_(None),
            ConfigurationPeriod.last_seen_at >= now - period.HOLDS,
        )
        .values(last_seen_at=now, ended_at=now)
    )


def version_ids(session: Session, named: Collection[tuple[Kind, str]]) -> dict[tuple[Kind, str], int]:
    """Return the ids of versions by kind and digest; those that nobody named before get one."""
    found = _find(session, named)
    missing = sorted(set(named) - found.keys())  # in one order for all: no deadlock
    if missing:
        rows = [{"kind": str(kind), "digest": one} for kind, one in missing]
        session.execute(insert_unless_there(ConfigurationVersion).on_conflict_do_nothing(), rows)
        found |= _find(session, missing)
    return found


def _find(session: Session, named: Collection[tuple[Kind, str]]) -> dict[tuple[Kind, str], int]:
    if not named:
        return {}
    columns = (ConfigurationVersion.kind, ConfigurationVersion.digest)
    query = select(*columns, ConfigurationVersion.id).where(
        # A writer sees every tenant's.
        ConfigurationVersion.tenant_id == COLUMN_DEFAULT,
        tuple_(*columns).in_([(str(kind), one) for kind, one in named]),
    )
    return {(Kind(kind), one): id_ for kind, one, id_ in session.execute(query)}


def _name(report: Report) -> tuple[Kind, str]:
    return report.configuration.kind, report.configuration.digest


def _add_contents(session: Session, told: dict[int, Configuration]) -> None:
    known = set(
        session.scalars(
            select(ConfigurationContent.version_id).where(ConfigurationContent.version_id.in_(told))
        )
    )
    for version_id, one in sorted(told.items()):
        if version_id in known or len(one.content.encode()) > MAX_CONTENT_BYTES:
            continue
        if digest(one.content) != one.digest:
            raise ValueError(f"{one.kind}: the content has another digest than the report says")
        # As text, because the driver would write it another way.
        content = cast(literal(one.content, TEXT), JSON)
        session.execute(
            insert_unless_there(ConfigurationContent)
            .values(version_id=version_id, content=content)
            .on_conflict_do_nothing()
        )


def _follow(session: Session, report: Report, version_id: int, at: dt.datetime) -> None:
    row = ConfigurationPeriod
    layer = row.layer.is_(None) if report.layer is None else row.layer == report.layer
    query = (
        select(row.id, row.version_id, row.last_seen_at, row.ended_at)
        .where(
            row.tenant_id == COLUMN_DEFAULT,
            row.source == report.source,
            row.kind == report.configuration.kind,
            row.model == report.model,
            layer,
        )
        .order_by(row.began_at.desc())
        .limit(1)
    )
    last = session.execute(query).one_or_none()
    change = period.change(None if last is None else Known(*last[1:]), version_id, at)
    if last is not None and change.last_seen_at is not None:
        session.execute(update(row).where(row.id == last.id).values(last_seen_at=change.last_seen_at))
    if last is not None and change.ended_at is not None:
        session.execute(update(row).where(row.id == last.id).values(ended_at=change.ended_at))
    if change.begins:
        values = {
            "version_id": version_id,
            "kind": str(report.configuration.kind),
            "model": report.model,
            "layer": report.layer,
            "source": report.source,
            "hop": str(report.hop),
            "began_at": at,
            "last_seen_at": at,
        }
        session.execute(insert(row).values(values))


def _key(source: str) -> int:
    return identity.model_id(f"configuration of {source}").int & (2**63 - 1)
