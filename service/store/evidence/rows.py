"""Read the rows that the log commits to, with their salts, one part of a table at a time."""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import TEXT, ColumnElement, Select, cast, exists, select
from sqlalchemy.dialects.postgresql.ranges import MultiRange, Range
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.evidence.entry import TRANSACTION_TIME
from service.evidence.incident import ASSIGNEE, IncidentState
from service.evidence.payloads import Kind, explanation_payload, payload_of
from service.evidence.row import Row
from service.evidence.tombstones import Reason as Erasing
from service.evidence.tombstones import tombstone_payload
from service.store.access.tables import AccessEntry
from service.store.base import OfTenant, values_of
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.days import is_sample_of_explanation
from service.store.evidence.tables import LogTombstone
from service.store.retention.tables import (
    DeletionCertificate,
    LegalHold,
    LegalHoldLift,
    RemovalDecision,
    RetentionVersion,
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
    (Kind.RETENTION_VERSION, RetentionVersion, "id", "set_at"),
    (Kind.LEGAL_HOLD, LegalHold, "id", "placed_at"),
    (Kind.LEGAL_HOLD_LIFT, LegalHoldLift, "id", "at"),
    (Kind.REMOVAL_DECISION, RemovalDecision, "id", "at"),
    (Kind.CONFIGURATION_VERSION, ConfigurationVersion, "id", "created_at"),
    (Kind.CONFIGURATION_PERIOD, ConfigurationPeriod, "id", "began_at"),
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
    yield from _contents(session, tenant)
    yield from _explanations(session, tenant)


def _explanations(
    session: Session,
    tenant: uuid.UUID,
    condition: ColumnElement[bool] | None = None,
    model_id: uuid.UUID | None = None,
) -> Iterator[Sequence[Row]]:
    query = select(Explanation, Sample).join(
        Sample, is_sample_of_explanation() & (Sample.tenant_id == Explanation.tenant_id)
    )
    if condition is not None:
        query = query.where(condition)
    if model_id is not None:
        query = query.where(Sample.model_id == model_id)
    for part in _parts(session, query, Explanation, tenant):
        matches = list_matches(session, [explanation for explanation, _ in part], tenant)
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


def list_incidents(session: Session, tenant: uuid.UUID) -> Iterator[IncidentState]:
    """Yield where each incident of a tenant stands, as its row says."""
    columns = (Incident.id, Incident.version, Incident.state, Incident.severity, Incident.labels)
    assignee = (Incident.__table__.c[name] for name in ASSIGNEE)
    query = select(*columns, *assignee).where(Incident.tenant_id == tenant)
    for row in session.execute(query.execution_options(yield_per=_AT_ONCE)):
        named = tuple(None if one is None else str(one) for one in row[len(columns) :])
        yield IncidentState(str(row.id), row.version, row.state, row.severity, row.labels, named)


def _contents(
    session: Session, tenant: uuid.UUID, condition: ColumnElement[bool] | None = None
) -> Iterator[Sequence[Row]]:
    """Yield what versions of configurations hold, each as its very text: that is what has the digest."""
    one = ConfigurationContent
    columns = (one.version_id, cast(one.content, TEXT).label("content"), one.created_at, one.log_salt)
    query = select(*columns).where(one.tenant_id == tenant, *(() if condition is None else (condition,)))
    for part in session.execute(query.execution_options(yield_per=_CONTENTS_AT_ONCE)).partitions():
        yield [
            row_of(Kind.CONFIGURATION_CONTENT, row._asdict(), "version_id", "created_at") for row in part
        ]


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
    session: Session, explanations: Sequence[Explanation], tenant: uuid.UUID
) -> dict[uuid.UUID, list[dict[str, Any]]]:
    """Return the concepts that a tenant's explanations match, by explanation."""
    matches: dict[uuid.UUID, list[dict[str, Any]]] = {}
    query = select(ConceptMatch).where(
        ConceptMatch.explanation_id.in_([one.id for one in explanations]),
        ConceptMatch.captured_at.in_({one.captured_at for one in explanations}),
        ConceptMatch.tenant_id == tenant,
    )
    for match in session.scalars(query):
        matches.setdefault(match.explanation_id, []).append(values_of(match))
    return matches


class Window(NamedTuple):
    """Which rows are asked for."""

    start: dt.datetime
    end: dt.datetime
    """Rows that were stored or changed within; some more may come."""
    model_id: uuid.UUID | None = None
    """The one model that they are of; None: any."""
    places: tuple[int, int] | None = None
    """First and behind the last of the entries that tombstones are wanted for; None: no others."""


def list_window(session: Session, tenant: uuid.UUID, kind: Kind, window: Window) -> Iterator[Sequence[Row]]:
    """Yield the rows of one kind that may have an entry within the window, as the reader meets them.

    An entry's time is when its transaction began, and a row's the same or up to ten minutes later.
    Decoders and definitions come whenever they are from: rows of the window stand on older ones.
    """
    if kind is Kind.EXPLANATION:
        yield from _explanations(
            session, tenant, _in_window(Explanation.created_at, window), window.model_id
        )
        return
    if kind is Kind.CONCEPT_VERSION:
        for one in session.scalars(select(ConceptVersion).where(ConceptVersion.created_at < window.end)):
            yield [row_of(kind, values_of(one), "digest", "created_at")]
        return
    if kind is Kind.CONFIGURATION_CONTENT:
        yield from _contents(session, tenant, _in_window(ConfigurationContent.created_at, window))
        return
    if kind is Kind.TOMBSTONE:
        for part in _parts(session, _tombstones(window), LogTombstone, tenant):
            yield [_tombstone(stone) for (stone,) in part]
        return
    table, key, at = next((table, key, at) for one, table, key, at in _SIMPLE if one is kind)
    for part in _parts(session, _of_window(kind, window), table, tenant):
        yield [row_of(kind, values_of(row), key, at) for (row,) in part]


def _of_window(kind: Kind, window: Window) -> Select[*tuple[Any, ...]]:
    match kind:
        case Kind.DECODER:
            return select(Decoder).where(Decoder.created_at < window.end)
        case Kind.FLAG:
            changed = select(Flag).where(
                Flag.created_at < window.end + TRANSACTION_TIME,
                Flag.updated_at >= window.start - TRANSACTION_TIME,
            )
            return changed if window.model_id is None else changed.where(Flag.model_id == window.model_id)
        case Kind.INCIDENT_EVENT:
            # Those of incidents that this reader does not meet are not his to read.
            incidents = select(Incident.id)
            if window.model_id is not None:
                incidents = incidents.where(Incident.model_id == window.model_id)
            return select(IncidentEvent).where(
                _in_window(IncidentEvent.at, window), IncidentEvent.incident_id.in_(incidents)
            )
        case Kind.ACCESS:
            shrunk = AccessEntry.log_trail.is_not(None) & (AccessEntry.at < window.end + TRANSACTION_TIME)
            # Nothing says when ids were taken out of an entry, but that an erasure has.
            erased = exists().where(
                LogTombstone.reason == Erasing.ERASURE, _in_window(LogTombstone.at, window)
            )
            return select(AccessEntry).where(_in_window(AccessEntry.at, window) | (shrunk & erased))
        case Kind.CONFIGURATION_PERIOD:
            # A report that waited stands for when it was made, which may be long before its entry.
            return select(ConfigurationPeriod).where(
                ConfigurationPeriod.began_at < window.end + TRANSACTION_TIME
            )
        case _:
            table, at = next((table, at) for one, table, _, at in _SIMPLE if one is kind)
            return select(table).where(_in_window(getattr(table, at), window))


def _tombstones(window: Window) -> Select[*tuple[Any, ...]]:
    """Return the query for tombstones of the window, and later ones over its entries."""
    wanted = _in_window(LogTombstone.at, window)
    if window.places is not None and window.places[0] < window.places[1]:
        wanted |= LogTombstone.leaves.overlaps(MultiRange([Range(*window.places)]))
    return select(LogTombstone).where(wanted)


def _in_window(column: InstrumentedAttribute[dt.datetime], window: Window) -> ColumnElement[bool]:
    return (column >= window.start - TRANSACTION_TIME) & (column < window.end + TRANSACTION_TIME)
