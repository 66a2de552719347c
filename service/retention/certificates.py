"""Deletion certificates: what was removed at once, by what right, and what proves that it was said then.

Nobody who removes rows has the log's key, so a certificate is not signed by itself: the log commits to it,
and its proof is that a signed checkpoint holds its entry. Whoever has the public key checks that offline.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from service.evidence.entry import commit, new_salt
from service.evidence.payloads import Kind, payload_of
from service.evidence.tombstones import Reason
from service.store.base import values_of
from service.store.evidence import proof
from service.store.evidence.append import append
from service.store.evidence.tables import LogTombstone
from service.store.read.page import Page, Position, older_than
from service.store.retention.tables import DeletionCertificate
from service.store.tables import Model


class View(NamedTuple):
    """A certificate and the name of its model."""

    certificate: DeletionCertificate
    model: str | None


def issue(
    session: Session,
    *,
    reason: Reason,
    authority: uuid.UUID,
    document: Mapping[str, Any],
    model: uuid.UUID | None = None,
) -> uuid.UUID:
    """Add the certificate of a run or request that has ended, and return its id; the caller commits.

    To the document, of JSON without numbers that are not whole, comes what the log has of its tombstones.
    """
    stones = session.execute(
        select(func.count(), func.coalesce(func.sum(LogTombstone.count), 0)).where(
            LogTombstone.authority == authority
        )
    ).one()
    tombstones = {"count": int(stones[0]), "log_entries": int(stones[1])}
    salt = new_salt()
    insertion = insert(DeletionCertificate).values(
        id=uuid.uuid4(),
        reason=reason,
        authority=authority,
        model_id=model,
        document={**document, "tombstones": tombstones},
        log_salt=salt,
    )
    row = values_of(session.scalars(insertion.returning(DeletionCertificate)).one())
    append(session, Kind.DELETION_CERTIFICATE, [payload(row)], [salt])
    return uuid.UUID(str(row["id"]))


def payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the log commits to."""
    return payload_of(Kind.DELETION_CERTIFICATE, row)


def prove(session: Session, tenant: uuid.UUID, certificate: DeletionCertificate) -> proof.Proof | None:
    """Return the proof that the newest checkpoint holds the certificate; None while none does."""
    if certificate.log_salt is None:
        return None
    return proof.prove(session, tenant, commit(certificate.log_salt, payload(values_of(certificate))))


def get_certificate(session: Session, certificate_id: uuid.UUID) -> View | None:
    """Return one certificate, or None."""
    query = select(DeletionCertificate, Model.name).outerjoin(
        Model, Model.id == DeletionCertificate.model_id
    )
    found = session.execute(query.where(DeletionCertificate.id == certificate_id)).one_or_none()
    return None if found is None else View(*found)


def list_certificates(
    session: Session,
    start: dt.datetime | None,
    end: dt.datetime | None,
    after: Position | None,
    limit: int,
) -> Page[View]:
    """Return one page of those issued from ``start`` up to ``end``, newest first."""
    row = DeletionCertificate
    query = select(row, Model.name).outerjoin(Model, Model.id == row.model_id)
    if start is not None:
        query = query.where(row.issued_at >= start)
    if end is not None:
        query = query.where(row.issued_at < end)
    if after is not None:
        query = query.where(older_than(row.issued_at, row.id, after))
    query = query.order_by(row.issued_at.desc(), row.id.desc())
    views = [View(*one) for one in session.execute(query.limit(limit + 1))]
    page = views[:limit]
    last = page[-1].certificate if len(views) > limit else None
    return Page(page, Position(last.issued_at, last.id) if last else None)
