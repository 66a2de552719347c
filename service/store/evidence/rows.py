"""Read the rows that the log commits to, with their salts, one part of a table at a time."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.evidence.payloads import Kind, explanation_payload, payload_of
from service.evidence.row import Row
from service.evidence.tombstones import tombstone_payload
from service.store.access.tables import AccessEntry
from service.store.base import OfTenant, values_of
from service.store.evidence.tables import LogTombstone
from service.store.retention.tables import (
    DeletionCertificate,
    LegalHold,
    LegalHoldLift,
    RetentionVersion,
)
from service.store.tables import (
    ConceptMatch,
    ConceptVersion,
    Decoder,
    Explanation,
    Flag,
    IncidentEvent,
    Sample,
)
from service.store.tenants import scope
from service.store.tenants.scope import DEFAULT_ID
from service.store.tenants.tables import Tenant

_AT_ONCE: Final = 1000
_SIMPLE: Final[tuple[tuple[Kind, type[OfTenant], str, str], ...]] = (
    (Kind.DECODER, Decoder, "id", "created_at"),
    (Kind.FLAG, Flag, "id", "created_at"),
    (Kind.INCIDENT_EVENT, IncidentEvent, "id", "at"),
    (Kind.ACCESS, AccessEntry, "id", "at"),
    (Kind.RETENTION_VERSION, RetentionVersion, "id", "set_at"),
    (Kind.LEGAL_HOLD, LegalHold, "id", "placed_at"),
    (Kind.LEGAL_HOLD_LIFT, LegalHoldLift, "id", "at"),
    (Kind.DELETION_CERTIFICATE, DeletionCertificate, "id", "issued_at"),
)
"""Kinds whose payload is of one table, with that table, its key and its time."""


def list_rows(session: Session, tenant: uuid.UUID) -> Iterator[Sequence[Row]]:
    """Yield all rows of a tenant that have, or should have, an entry; of one that is deleted its tombstone.

    The transaction is the tenant's, as a reader's has to be. Parts of an explanation that are not the
    tenant's own are left out: nobody who may read it would meet them.
    """
    if tenant == DEFAULT_ID:
        yield from _definitions(session)
    for part in _parts(session, select(LogTombstone), LogTombstone, tenant):
        yield [_tombstone(stone) for (stone,) in part]
    for kind, table, key, at in _SIMPLE:
        for part in _parts(session, select(table), table, tenant):
            yield [row_of(kind, values_of(row), key, at) for (row,) in part]
    query = select(Explanation, Sample).join(
        Sample, (Sample.id == Explanation.sample_id) & (Sample.tenant_id == Explanation.tenant_id)
    )
    for part in _parts(session, query, Explanation, tenant):
        matches = list_matches(session, [explanation.id for explanation, _ in part], tenant)
        yield [
            explanation_row(explanation, sample, matches.get(explanation.id, ()))
            for explanation, sample in part
        ]


def _definitions(session: Session) -> Iterator[Sequence[Row]]:
    """Yield the definitions of all tenants, of which a reader meets those that the named one uses."""
    found: dict[str, Row] = {}
    for user in session.scalars(select(Tenant.id)).all():
        scope.set_tenant(session, user)
        for one in session.scalars(select(ConceptVersion).execution_options(populate_existing=True)):
            row = row_of(Kind.CONCEPT_VERSION, values_of(one), "digest", "created_at")
            found[row.key] = row
    scope.set_tenant(session, DEFAULT_ID)
    session.expunge_all()
    yield list(found.values())


def _tombstone(stone: LogTombstone) -> Row:
    values = values_of(stone) | {"leaves": [(one.lower, one.upper) for one in stone.leaves]}
    return Row(
        kind=Kind.TOMBSTONE,
        key=str(stone.id),
        at=stone.at,
        salt=stone.log_salt,
        payload=tombstone_payload(values),
    )


def explanation_row(explanation: Explanation, sample: Sample, matches: Sequence[Mapping[str, Any]]) -> Row:
    """Return the row of an explanation with its sample and the concepts that it matches."""
    return Row(
        kind=Kind.EXPLANATION,
        key=str(explanation.id),
        at=explanation.created_at,
        salt=explanation.log_salt,
        payload=explanation_payload(values_of(explanation), values_of(sample), matches),
    )


def row_of(kind: Kind, values: Mapping[str, Any], key: str = "id", at: str = "created_at") -> Row:
    """Return the row whose payload is of one table's columns; ``key`` and ``at`` name two of them."""
    trail = tuple(values.get("log_trail") or ())
    return Row(
        kind=kind,
        key=str(values[key]),
        at=values[at],
        salt=values["log_salt"],
        payload=payload_of(kind, values, trail),
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


def list_matches(
    session: Session, explanations: Sequence[uuid.UUID], tenant: uuid.UUID
) -> dict[uuid.UUID, list[dict[str, Any]]]:
    """Return the concepts that a tenant's explanations match, by explanation."""
    matches: dict[uuid.UUID, list[dict[str, Any]]] = {}
    query = select(ConceptMatch).where(
        ConceptMatch.explanation_id.in_(explanations), ConceptMatch.tenant_id == tenant
    )
    for match in session.scalars(query):
        matches.setdefault(match.explanation_id, []).append(values_of(match))
    return matches
