"""Read the rows that the log commits to, with their salts, one part of a table at a time."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import TEXT, Select, cast, select
from sqlalchemy.orm import Session

from service.evidence.incident import IncidentState
from service.evidence.payloads import Kind, explanation_payload, payload_of
from service.evidence.row import Row
from service.store.access.tables import AccessEntry
from service.store.base import OfTenant, values_of
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.tables import (
    ConceptMatch,
    ConceptVersion,
    Decoder,
    Explanation,
    Flag,
    Incident,
    IncidentEvent,
    Sample,
)
from service.store.tenants import scope
from service.store.tenants.scope import DEFAULT_ID
from service.store.tenants.tables import Tenant

_AT_ONCE: Final = 1000
_CONTENTS_AT_ONCE: Final = 20
"""One may be a quarter of a megabyte."""
_SIMPLE: Final[tuple[tuple[Kind, type[OfTenant], str, str], ...]] = (
    (Kind.DECODER, Decoder, "id", "created_at"),
    (Kind.FLAG, Flag, "id", "created_at"),
    (Kind.INCIDENT_EVENT, IncidentEvent, "id", "at"),
    (Kind.ACCESS, AccessEntry, "id", "at"),
    (Kind.CONFIGURATION_VERSION, ConfigurationVersion, "id", "created_at"),
    (Kind.CONFIGURATION_PERIOD, ConfigurationPeriod, "id", "began_at"),
)
"""Kinds whose payload is of one table, with that table, its key and its time."""


def list_rows(session: Session, tenant: uuid.UUID) -> Iterator[Sequence[Row]]:
    """Yield all rows of a tenant that have, or should have, an entry.

    The transaction is the tenant's, as a reader's has to be. Parts of an explanation that are not the
    tenant's own are left out: nobody who may read it would meet them.
    """
    if tenant == DEFAULT_ID:
        yield from _definitions(session)
    for kind, table, key, at in _SIMPLE:
        for part in _parts(session, select(table), table, tenant):
            yield [_simple(kind, values_of(row), key, at) for (row,) in part]
    yield from _contents(session, tenant)
    query = select(Explanation, Sample).join(
        Sample, (Sample.id == Explanation.sample_id) & (Sample.tenant_id == Explanation.tenant_id)
    )
    for part in _parts(session, query, Explanation, tenant):
        matches = _matches(session, [explanation.id for explanation, _ in part], tenant)
        yield [
            Row(
                kind=Kind.EXPLANATION,
                key=str(explanation.id),
                at=explanation.created_at,
                salt=explanation.log_salt,
                payload=explanation_payload(
                    values_of(explanation), values_of(sample), matches.get(explanation.id, ())
                ),
            )
            for explanation, sample in part
        ]


def _definitions(session: Session) -> Iterator[Sequence[Row]]:
    """Yield the definitions of all tenants, of which a reader meets those that the named one uses."""
    found: dict[str, Row] = {}
    for user in session.scalars(select(Tenant.id)).all():
        scope.set_tenant(session, user)
        for one in session.scalars(select(ConceptVersion).execution_options(populate_existing=True)):
            row = _simple(Kind.CONCEPT_VERSION, values_of(one), "digest", "created_at")
            found[row.key] = row
    scope.set_tenant(session, DEFAULT_ID)
    session.expunge_all()
    yield list(found.values())


def list_incidents(session: Session, tenant: uuid.UUID) -> Iterator[IncidentState]:
    """Yield where each incident of a tenant stands, as its row says."""
    columns = (Incident.id, Incident.version, Incident.state, Incident.severity, Incident.labels)
    query = select(*columns).where(Incident.tenant_id == tenant)
    for row in session.execute(query.execution_options(yield_per=_AT_ONCE)):
        yield IncidentState(str(row.id), row.version, row.state, row.severity, row.labels)


def _contents(session: Session, tenant: uuid.UUID) -> Iterator[Sequence[Row]]:
    """Yield what versions of configurations hold, each as its very text: that is what has the digest."""
    one = ConfigurationContent
    columns = (one.version_id, cast(one.content, TEXT).label("content"), one.created_at, one.log_salt)
    query = select(*columns).where(one.tenant_id == tenant)
    for part in session.execute(query.execution_options(yield_per=_CONTENTS_AT_ONCE)).partitions():
        yield [
            _simple(Kind.CONFIGURATION_CONTENT, row._asdict(), "version_id", "created_at") for row in part
        ]


def _simple(kind: Kind, row: dict[str, Any], key: str, at: str) -> Row:
    trail = tuple(row.get("log_trail") or ())
    return Row(
        kind=kind,
        key=str(row[key]),
        at=row[at],
        salt=row["log_salt"],
        payload=payload_of(kind, row, trail),
        trail=trail,
    )


def _parts(
    session: Session, query: Select[*tuple[Any, ...]], table: type[OfTenant], tenant: uuid.UUID
) -> Iterator[Sequence[Any]]:
    query = query.where(table.tenant_id == tenant)
    found = session.execute(query.execution_options(yield_per=_AT_ONCE, populate_existing=True))
    for part in found.partitions():
        yield part
        session.expunge_all()  # or all rows would be kept until the end


def _matches(
    session: Session, explanations: Sequence[uuid.UUID], tenant: uuid.UUID
) -> dict[uuid.UUID, list[dict[str, Any]]]:
    matches: dict[uuid.UUID, list[dict[str, Any]]] = {}
    query = select(ConceptMatch).where(
        ConceptMatch.explanation_id.in_(explanations), ConceptMatch.tenant_id == tenant
    )
    for match in session.scalars(query):
        matches.setdefault(match.explanation_id, []).append(values_of(match))
    return matches
