"""The tenants' data keys in the store. The caller commits, and names the tenant of the transaction."""

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.vectors.sealing import DataKey, SealingError, WrappingKey
from service.store.vectors.tables import VectorKey


class NoKeyError(ValueError):
    """The tenant's keys are all retired or destroyed; the message names the fix."""


def key_in_use(session: Session, tenant_id: uuid.UUID, wrapping: WrappingKey) -> DataKey:
    """Return the key that the tenant's new vectors are sealed under; his first one is made here.

    Raises NoKeyError when he has had keys and none is in use: after they were destroyed, somebody has to
    say that vectors are kept again. Raises SealingError when this wrapping key does not open it.
    """
    row = _in_use(session, tenant_id)
    if row is None:
        if list_keys(session, tenant_id):
            raise NoKeyError(
                f"tenant {tenant_id} has no key in use for vectors; make one: subtext vectors rotate"
            )
        _add(session, tenant_id, wrapping)
        row = _in_use(session, tenant_id)
        if row is None:
            raise NoKeyError(f"the key of tenant {tenant_id} was retired just now; try again")
    return unwrapped(row, wrapping)


def key_of(session: Session, key_id: uuid.UUID, wrapping: WrappingKey) -> DataKey:
    """Return the key that sealed a vector; SealingError when it is not there or cannot be unwrapped."""
    row = session.get(VectorKey, key_id)
    if row is None:
        raise SealingError(f"key {key_id} is not in the store; restore the row of vector_keys")
    return unwrapped(row, wrapping)


def unwrapped(row: VectorKey, wrapping: WrappingKey) -> DataKey:
    """Return the key of a row; SealingError says whether it is destroyed or of another wrapping key."""
    if row.wrapped is None:
        at = "" if row.destroyed_at is None else f" at {row.destroyed_at.isoformat(timespec='seconds')}"
        raise SealingError(f"key {row.id} was destroyed{at}: nothing opens what it sealed")
    if row.wrapped_by != wrapping.id:
        raise SealingError(
            f"key {row.id} was wrapped by {row.wrapped_by}, and the key file is of {wrapping.id}:"
            " set SUBTEXT_VECTORS_KEY_FILE to the file of then"
        )
    return wrapping.unwrap(row.wrapped, row.id, row.tenant_id)


def rotate(session: Session, tenant_id: uuid.UUID, wrapping: WrappingKey) -> uuid.UUID:
    """Retire the key in use, if any, and return the id of a new one; what was sealed stays readable."""
    session.execute(
        update(VectorKey)
        .where(VectorKey.tenant_id == tenant_id, VectorKey.retired_at.is_(None))
        .values(retired_at=func.now())
    )
    made = _add(session, tenant_id, wrapping)
    if made is None:
        raise NoKeyError(f"tenant {tenant_id} got another key just now; try again")
    return made


def destroy(session: Session, tenant_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Destroy all of the tenant's keys and return their ids; nothing opens his vectors from then on."""
    found = (
        update(VectorKey)
        .where(VectorKey.tenant_id == tenant_id, VectorKey.destroyed_at.is_(None))
        .values(
            wrapped=None,
            destroyed_at=func.now(),
            retired_at=func.coalesce(VectorKey.retired_at, func.now()),
        )
        .returning(VectorKey.id)
        .execution_options(synchronize_session=False)
    )
    return sorted(session.scalars(found))


def list_keys(session: Session, tenant_id: uuid.UUID | None = None) -> Sequence[VectorKey]:
    """Return the keys, of one tenant or of all, the oldest first."""
    query = select(VectorKey).order_by(VectorKey.created_at, VectorKey.id)
    return session.scalars(
        query if tenant_id is None else query.where(VectorKey.tenant_id == tenant_id)
    ).all()


def state_of(key: VectorKey) -> str:
    """Return what a key is good for: in use, retired or destroyed."""
    if key.destroyed_at is not None:
        return "destroyed"
    return "in use" if key.retired_at is None else "retired"


def _in_use(session: Session, tenant_id: uuid.UUID) -> VectorKey | None:
    query = select(VectorKey).where(VectorKey.tenant_id == tenant_id, VectorKey.retired_at.is_(None))
    return session.scalar(query.execution_options(populate_existing=True))


def _add(session: Session, tenant_id: uuid.UUID, wrapping: WrappingKey) -> uuid.UUID | None:
    """Insert a new key; None when somebody else's is in use by now."""
    key = DataKey.generate()
    values = {
        "id": key.id,
        "tenant_id": tenant_id,
        "wrapped_by": wrapping.id,
        "wrapped": wrapping.wrap(key, tenant_id),
    }
    # Of two workers at once the second waits here for the first, and takes his.
    inserted = session.execute(
        insert(VectorKey).values(values).on_conflict_do_nothing().returning(VectorKey.id)
    )
    return inserted.scalar_one_or_none()
