"""Read the rows that the log commits to, with their salts, one part of a table at a time."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.evidence.payloads import Kind, explanation_payload, payload_of
from service.evidence.row import Row
from service.store.access.tables import AccessEntry
from service.store.base import values_of
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tables import (
    Base,
    ConceptMatch,
    ConceptVersion,
    Decoder,
    Explanation,
    Flag,
    IncidentEvent,
    Sample,
)
from service.store.tenants.read import list_ids
from service.store.tenants.scope import set_tenant

_AT_ONCE: Final = 1000
_SIMPLE: Final[tuple[tuple[Kind, type[Base], str, str], ...]] = (
    (Kind.DECODER, Decoder, "id", "created_at"),
    (Kind.FLAG, Flag, "id", "created_at"),
    (Kind.INCIDENT_EVENT, IncidentEvent, "id", "at"),
    (Kind.ACCESS, AccessEntry, "id", "at"),
)
"""Kinds whose payload is of one table, with that table, its key and its time."""


def list_rows(session: Session, tenant: uuid.UUID) -> Iterator[Sequence[Row]]:
    """Yield all rows of a tenant, whom the transaction names, that have or should have an entry."""
    if tenant == tenant_id(DEFAULT_TENANT):
        yield _definitions(session)
    for kind, table, key, at in _SIMPLE:
        for part in _parts(session, select(table), table, tenant):
            yield [_simple(kind, values_of(row), key, at) for (row,) in part]
    query = select(Explanation, Sample).join(Sample, Sample.id == Explanation.sample_id)
    for part in _parts(session, query, Explanation, tenant):
        matches = _matches(session, [explanation.id for explanation, _ in part])
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


def _definitions(session: Session) -> list[Row]:
    """Return the definitions, which have no tenant: the default one's log commits to them.

    A reader meets those that one tenant uses, so each is asked for his. They are few.
    """
    found = {}
    for tenant in list_ids(session):
        set_tenant(session, tenant)
        for row in session.scalars(select(ConceptVersion)):
            found[row.digest] = _simple(Kind.CONCEPT_VERSION, values_of(row), "digest", "created_at")
    set_tenant(session, tenant_id(DEFAULT_TENANT))
    session.expunge_all()
    return list(found.values())


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
    session: Session, query: Select[*tuple[Any, ...]], table: type[Base], tenant: uuid.UUID
) -> Iterator[Sequence[Any]]:
    query = query.where(table.__table__.columns["tenant_id"] == tenant)
    found = session.execute(query.execution_options(yield_per=_AT_ONCE, populate_existing=True))
    for part in found.partitions():
        yield part
        session.expunge_all()  # or all rows would be kept until the end


def _matches(session: Session, explanations: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[dict[str, Any]]]:
    matches: dict[uuid.UUID, list[dict[str, Any]]] = {}
    query = select(ConceptMatch).where(ConceptMatch.explanation_id.in_(explanations))
    for match in session.scalars(query):
        matches.setdefault(match.explanation_id, []).append(values_of(match))
    return matches
