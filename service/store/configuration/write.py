"""Note which configurations a process runs. The caller commits.

Reports may come twice and late: each stands for the moment at which it was made, by its age.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import cast, func, insert, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSON, TEXT
from sqlalchemy.dialects.postgresql import insert as insert_unless_there
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind as Logged
from service.evidence.payloads import payload_of
from service.store import identity
from service.store.base import values_of
from service.store.configuration import period
from service.store.configuration.period import Known
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.evidence.append import append
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
    open_ones = select(ConfigurationPeriod.id).where(
        ConfigurationPeriod.tenant_id == COLUMN_DEFAULT,
        ConfigurationPeriod.source == source,
        ConfigurationPeriod.ended_at.is_(None),
        ConfigurationPeriod.last_seen_at >= now - period.HOLDS,
    )
    for one in session.scalars(open_ones).all():
        session.execute(
            update(ConfigurationPeriod).where(ConfigurationPeriod.id == one).values(last_seen_at=now)
        )
        _end(session, one, now)


def version_ids(session: Session, named: Collection[tuple[Kind, str]]) -> dict[tuple[Kind, str], int]:
    """Return the ids of versions by kind and digest; those that nobody named before get one."""
    found = _find(session, named)
    missing = sorted(set(named) - found.keys())  # in one order for all: no deadlock
    if missing:
        _add_versions(session, missing)
        found |= _find(session, missing)
    return found


def _add_versions(session: Session, missing: Sequence[tuple[Kind, str]]) -> None:
    rows = [{"kind": str(kind), "digest": one, "log_salt": entry.new_salt()} for kind, one in missing]
    insertion = (
        insert_unless_there(ConfigurationVersion).on_conflict_do_nothing().returning(ConfigurationVersion)
    )
    new = [values_of(one) for one in session.scalars(insertion, rows)]
    kind = Logged.CONFIGURATION_VERSION
    append(session, kind, [payload_of(kind, one) for one in new], [one["log_salt"] for one in new])


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
        salt = entry.new_salt()
        created_at = session.scalar(
            insert_unless_there(ConfigurationContent)
            .values(version_id=version_id, content=content, log_salt=salt)
            .on_conflict_do_nothing()
            .returning(ConfigurationContent.created_at)
        )
        if created_at is not None:
            row = {"version_id": version_id, "content": one.content, "created_at": created_at}
            kind = Logged.CONFIGURATION_CONTENT
            append(session, kind, [payload_of(kind, row)], [salt])


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
        _end(session, last.id, change.ended_at)
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
        salt = entry.new_salt()
        stored = session.scalars(insert(row).values(**values, log_salt=salt).returning(row)).one()
        kind = Logged.CONFIGURATION_PERIOD
        append(session, kind, [payload_of(kind, values_of(stored))], [salt])


def _end(session: Session, period_id: uuid.UUID, at: dt.datetime) -> None:
    """End a period, and let the log commit to it as it is then. The caller holds the source's lock."""
    row, kind = ConfigurationPeriod, Logged.CONFIGURATION_PERIOD
    query = select(row).where(row.id == period_id).execution_options(populate_existing=True)
    stored = values_of(session.scalars(query).one())
    trail = list(stored["log_trail"] or [])
    if stored["log_salt"] is not None:  # None: its beginning is from before the log
        trail.append(entry.commit(stored["log_salt"], payload_of(kind, stored, trail)))
    [salt] = append(session, kind, [payload_of(kind, stored | {"ended_at": at}, trail)])
    changes = {"ended_at": at, "log_salt": salt, "log_trail": trail}
    session.execute(update(row).where(row.id == period_id).values(changes))


def _key(source: str) -> int:
    return identity.model_id(f"configuration of {source}").int & (2**63 - 1)
