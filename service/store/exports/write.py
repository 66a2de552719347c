"""What becomes of exports. Whoever opened the session commits."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from service.store.exports.tables import Export, State
from service.store.triage import Actor

_LIVING = (State.WAITING, State.RUNNING, State.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExport:
    """What is asked for, and by whom."""

    kinds: Sequence[str]
    of_model: str | None
    models: Sequence[str] | None
    period_start: dt.datetime
    period_end: dt.datetime
    format: str
    with_text: bool
    earlier_size: int | None
    by: Actor
    purpose: str | None
    purpose_note: str | None


def add_export(session: Session, new: NewExport) -> Export:
    """Insert an export, whose job is in the queue with it, and return it."""
    values = {name: getattr(new, name) for name in new.__slots__ if name != "by"} | new.by._asdict()
    statement = insert(Export).values(id=uuid.uuid4(), **values).returning(Export)
    return session.scalars(statement).one()


def begin(session: Session, export_id: uuid.UUID) -> Export | None:
    """Mark an export as running and return it; None when there is nothing to do any more."""
    statement = (
        update(Export)
        .where(Export.id == export_id, Export.state.in_([State.WAITING, State.RUNNING]))
        .values(state=State.RUNNING, attempts=Export.attempts + 1)
        .returning(Export)
    )
    return session.scalars(statement).one_or_none()


class Made(NamedTuple):
    """A file that is there."""

    bytes: int
    sha256: str
    rows: int
    withheld: int


def finish(session: Session, export_id: uuid.UUID, made: Made, kept: dt.timedelta) -> bool:
    """Mark an export as ready; False when it was erased meanwhile, and its file must go."""
    statement = (
        update(Export)
        .where(Export.id == export_id, Export.state == State.RUNNING)
        .values(
            state=State.READY,
            problem=None,
            finished_at=func.now(),
            expires_at=func.now() + kept,
            **made._asdict(),
        )
        .returning(Export.id)
    )
    return session.scalar(statement) is not None


def fail(session: Session, export_id: uuid.UUID, problem: str) -> None:
    """Mark an export as failed for good."""
    session.execute(
        update(Export)
        .where(Export.id == export_id, Export.state.in_([State.WAITING, State.RUNNING]))
        .values(state=State.FAILED, finished_at=func.now(), problem=problem)
    )


def take_expired(session: Session) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """Mark the exports whose time is over; return their tenants and ids."""
    statement = (
        update(Export)
        .where(Export.state == State.READY, Export.expires_at <= func.now())
        .values(state=State.EXPIRED)
        .returning(Export.tenant_id, Export.id)
    )
    return [(tenant, export) for tenant, export in session.execute(statement)]


def list_living(session: Session, tenant: uuid.UUID) -> list[Export]:
    """Return the exports of a tenant that have a file, or will have one, the oldest first."""
    query = select(Export).where(Export.tenant_id == tenant, Export.state.in_(_LIVING))
    return list(session.scalars(query.order_by(Export.requested_at)))


def mark_erased(session: Session, exports: Collection[uuid.UUID]) -> None:
    """Mark exports whose files are deleted because something in them was erased."""
    session.execute(
        update(Export)
        .where(Export.id.in_(exports), Export.state.in_(_LIVING))
        .values(state=State.ERASED, finished_at=func.now())
    )
