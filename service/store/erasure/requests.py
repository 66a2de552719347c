"""Ask for an erasure, list what was asked, and write down how far it is. The caller commits."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session

from service.evidence import entry
from service.store.erasure.tables import Erasure, ErasureScope, ErasureState
from service.store.read.page import Page, Position, older_than
from service.store.retention.tables import Decision, RemovalDecision
from service.store.triage import Actor

_TOLD = (
    Erasure.id, Erasure.asked_at, Erasure.due_at, Erasure.key_id, Erasure.key_name, Erasure.session_id,
    Erasure.issuer, Erasure.person, Erasure.scope, Erasure.commitment, Erasure.state, Erasure.counts,
    Erasure.held, Erasure.finished_at, Erasure.objectable_until,
)  # fmt: skip
"""All that is ever told of one. The identifier is not: the service cannot even read it."""


class Told(NamedTuple):
    """An erasure as it may be told."""

    id: uuid.UUID
    asked_at: dt.datetime
    due_at: dt.datetime
    key_id: uuid.UUID | None
    key_name: str | None
    session_id: uuid.UUID | None
    issuer: str | None
    person: str | None
    scope: str
    commitment: bytes
    state: str
    counts: Mapping[str, int]
    held: int
    finished_at: dt.datetime | None
    objectable_until: dt.datetime | None


class Certificate(NamedTuple):
    """What proves to others of which identifier an erasure was. Nobody keeps it but who asked."""

    salt: bytes
    commitment: bytes


class Open(NamedTuple):
    """How many erasures are not done, and of how many."""

    total: int
    open: int
    overdue: int
    held: int
    """Open ones of which a legal hold keeps something."""
    oldest_at: dt.datetime | None


def certified(erasure_id: uuid.UUID, scope: str, identifier: str | None) -> dict[str, Any]:
    """Return what the certificate commits to: HMAC-SHA256 by its salt, over this in canonical JSON."""
    return {"erasure": str(erasure_id), "identifier": identifier, "scope": scope, "v": 1}


def ask(
    session: Session, scope: ErasureScope, identifier: str | None, actor: Actor
) -> tuple[uuid.UUID, Certificate]:
    """Add a request and return its id with the certificate, of which only the commitment is kept."""
    erasure_id, salt = uuid.uuid4(), entry.new_salt()
    commitment = entry.commit(salt, certified(erasure_id, scope, identifier))
    row = {
        "id": erasure_id,
        **actor._asdict(),
        "scope": scope,
        "identifier": identifier,
        "commitment": commitment,
    }
    session.execute(insert(Erasure).values(row).inline())
    return erasure_id, Certificate(salt, commitment)


def get(session: Session, erasure_id: uuid.UUID) -> Told | None:
    """Return one; None when there is none of that id."""
    found = session.execute(select(*_TOLD).where(Erasure.id == erasure_id)).one_or_none()
    return None if found is None else Told(*found)


def list_page(session: Session, after: Position | None, limit: int) -> Page[Told]:
    """Return one page, newest first."""
    query = select(*_TOLD).order_by(Erasure.asked_at.desc(), Erasure.id.desc())
    if after is not None:
        query = query.where(older_than(Erasure.asked_at, Erasure.id, after))
    found = [Told(*row) for row in session.execute(query.limit(limit + 1))]
    last = found[limit - 1] if len(found) > limit else None
    return Page(found[:limit], Position(last.asked_at, last.id) if last else None)


def count_open(session: Session, now: dt.datetime) -> Open:
    """Return how many there are of those that the transaction meets."""
    is_open = Erasure.state == ErasureState.OPEN
    counts = select(
        func.count(Erasure.id),
        func.count(Erasure.id).filter(is_open),
        func.count(Erasure.id).filter(is_open, Erasure.due_at < now),
        func.count(Erasure.id).filter(is_open, Erasure.held > 0),
        func.min(Erasure.asked_at).filter(is_open),
    )
    return Open(*session.execute(counts).one())


def list_due(session: Session) -> Sequence[Erasure]:
    """Return the open ones that wait for nobody, the oldest first, of every tenant that is met."""
    query = select(Erasure).where(Erasure.state == ErasureState.OPEN, func.subtext_may_erase(Erasure.id))
    return session.scalars(query.order_by(Erasure.asked_at, Erasure.id)).all()


def count_waiting(session: Session) -> int:
    """Return how many open ones somebody may still object to, of every tenant that is met."""
    is_waiting = (Erasure.state == ErasureState.OPEN, ~func.subtext_may_erase(Erasure.id))
    return session.scalars(select(func.count(Erasure.id)).where(*is_waiting)).one()


def cancel_objected(session: Session) -> Sequence[uuid.UUID]:
    """Close those to which somebody objected, and forget what they were about; return their ids."""
    objected = exists().where(
        RemovalDecision.erasure_id == Erasure.id, RemovalDecision.decision == Decision.OBJECTED
    )
    closing = (
        update(Erasure)
        .where(Erasure.state == ErasureState.OPEN, objected)
        .values(state=ErasureState.CANCELLED, identifier=None, finished_at=func.now())
        .returning(Erasure.id)
    )
    return session.scalars(closing, execution_options={"synchronize_session": False}).all()


def add_counts(session: Session, erasure_id: uuid.UUID, counts: Mapping[str, int]) -> None:
    """Add to what went, in the transaction in which it goes."""
    locked = select(Erasure.counts).where(Erasure.id == erasure_id).with_for_update()
    before: Mapping[str, int] = session.execute(locked).scalar_one()
    names = sorted({*before, *counts})
    after = {name: before.get(name, 0) + counts.get(name, 0) for name in names}
    _set(session, erasure_id, counts=after)


def note_sweep(session: Session, erasure_id: uuid.UUID, *, held: int, is_clean: bool) -> dt.datetime | None:
    """Write down what a sweep found; return since when all of them found nothing."""
    since = func.coalesce(Erasure.clean_since, func.now()) if is_clean else None
    _set(session, erasure_id, held=held, clean_since=since)
    return session.scalar(select(Erasure.clean_since).where(Erasure.id == erasure_id))


def finish(session: Session, erasure_id: uuid.UUID) -> None:
    """Say that it is done, and forget what it was about."""
    _set(session, erasure_id, state=ErasureState.DONE, identifier=None, finished_at=func.now())


def _set(session: Session, erasure_id: uuid.UUID, **values: Any) -> None:
    session.execute(
        update(Erasure).where(Erasure.id == erasure_id).values(**values),
        execution_options={"synchronize_session": False},
    )
