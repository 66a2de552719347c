"""Adding, opening and deleting kept vectors. The caller commits."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, exists, not_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningDelete

from service.store.days import REQUEST_LASTS, between
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.vectors import keys
from service.store.vectors.sealing import DataKey, Facts, Sealed, WrappingKey
from service.store.vectors.tables import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVector:
    """One activation to keep, as its record brought it."""

    sample_id: uuid.UUID
    captured_at: dt.datetime
    """Of this very capture, as its explanation has it."""
    dtype: str
    d_model: int
    values: bytes
    """(d_model,) of `dtype`, little endian."""
    expires_at: dt.datetime


def add_vectors(session: Session, tenant_id: uuid.UUID, key: DataKey, new: Sequence[NewVector]) -> None:
    """Seal and insert them; one that is there stays, so that a repeated batch changes nothing."""
    rows = [_row(tenant_id, key, one) for one in new]
    if rows:
        session.execute(insert(Vector).on_conflict_do_nothing(), rows)


def get_vector(session: Session, sample_id: uuid.UUID, captured_at: dt.datetime) -> Vector | None:
    """Return the vector of a sample's capture; None when it was not kept, or is deleted by now."""
    return session.get(Vector, (sample_id, captured_at))


def opened(session: Session, vector: Vector, wrapping: WrappingKey) -> bytes:
    """Return a vector's bytes; SealingError names the reason why they cannot be had, and the fix."""
    key = keys.key_of(session, vector.key_id, wrapping)
    facts = Facts(vector.tenant_id, vector.sample_id, vector.captured_at, vector.dtype, vector.d_model)
    return key.open(Sealed(vector.nonce, vector.ciphertext), facts)


def expire(
    session: Session, now: dt.datetime, limit: int, *, spared: ColumnElement[bool] | None = None
) -> int:
    """Delete up to ``limit`` of the tenant's vectors whose time is over, the oldest first; return how many.

    ``spared`` is a condition on `Sample`, such as a legal hold: vectors of samples that it is true of stay.
    Less than ``limit`` means that no more are due, or that somebody else deletes them just now. Nothing is
    locked beforehand: whoever may only read and delete has no right to that.
    """
    due = select(Vector.sample_id, Vector.captured_at).where(
        Vector.tenant_id == scope.tenant_of(session), Vector.expires_at <= now
    )
    if spared is not None:
        # A position that was computed twice has its vector's time or its sample's.
        near_vector = between(
            Sample.captured_at, Vector.captured_at - REQUEST_LASTS, Vector.captured_at + REQUEST_LASTS
        )
        due = due.where(not_(exists().where(Sample.id == Vector.sample_id, near_vector, spared)))
    due = due.order_by(Vector.expires_at).limit(limit)
    gone = delete(Vector).where(tuple_(Vector.sample_id, Vector.captured_at).in_(due))
    return _count(session, gone.returning(Vector.sample_id))


def delete_for(session: Session, sample_ids: Sequence[uuid.UUID]) -> int:
    """Delete the vectors of these samples, of every capture, and return how many there were."""
    if not sample_ids:
        return 0
    gone = delete(Vector).where(Vector.sample_id.in_(sample_ids))
    return _count(session, gone.returning(Vector.sample_id))


def _count(session: Session, statement: ReturningDelete[tuple[uuid.UUID]]) -> int:
    return len(session.execute(statement.execution_options(synchronize_session=False)).all())


def _row(tenant_id: uuid.UUID, key: DataKey, new: NewVector) -> dict[str, object]:
    facts = Facts(tenant_id, new.sample_id, new.captured_at, new.dtype, new.d_model)
    sealed = key.seal(new.values, facts)
    return {
        "tenant_id": tenant_id,
        "sample_id": new.sample_id,
        "captured_at": new.captured_at,
        "key_id": key.id,
        "dtype": new.dtype,
        "d_model": new.d_model,
        "nonce": sealed.nonce,
        "ciphertext": sealed.ciphertext,
        "expires_at": new.expires_at,
    }
