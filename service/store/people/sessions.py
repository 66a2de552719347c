"""Sessions at rest. Only the SHA-256 of a token ever reaches this module. The caller commits."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from service.store.people.tables import End, LoginSession


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session that somebody signs in to: of a person with its issuer, or of a key."""

    token_sha256: bytes
    idle_expires_at: dt.datetime
    expires_at: dt.datetime
    key_id: uuid.UUID | None = None
    issuer: str | None = None
    person: str | None = None
    display_name: str | None = None
    login_sha256: bytes | None = None
    roles: Sequence[str] = ()
    scopes: Sequence[str] = ()
    models: Sequence[str] | None = None


def add_session(session: Session, new: NewSession) -> LoginSession:
    """Add a session of the transaction's tenant and return it.

    Raises sqlalchemy.exc.IntegrityError when its login made a session already.
    """
    values = asdict(new) | {"roles": list(new.roles), "scopes": list(new.scopes)}
    values["models"] = None if new.models is None else list(new.models)
    made = LoginSession(id=uuid.uuid4(), **values)
    session.add(made)
    session.flush()
    return made


def get_session(session: Session, token_sha256: bytes) -> LoginSession | None:
    """Return the session with this digest, whatever its state.

    A transaction with a reader's rights meets it after `scope.look_for_session` alone.
    """
    return session.scalar(select(LoginSession).where(LoginSession.token_sha256 == token_sha256))


def list_by_ids(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, LoginSession]:
    """Return the sessions with these ids by id, whatever their state; no query where there are none."""
    if not ids:
        return {}
    return {one.id: one for one in session.scalars(select(LoginSession).where(LoginSession.id.in_(ids)))}


def list_sessions(session: Session, *, living_at: dt.datetime | None = None) -> list[LoginSession]:
    """Return the sessions, oldest first; of ``living_at`` only those that work then."""
    query = select(LoginSession).order_by(LoginSession.created_at, LoginSession.id)
    if living_at is not None:
        query = query.where(
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > living_at,
            LoginSession.idle_expires_at > living_at,
        )
    return list(session.scalars(query))


def end_sessions(
    session: Session,
    now: dt.datetime,
    why: End,
    *,
    ids: Sequence[uuid.UUID] = (),
    person: str | None = None,
) -> list[LoginSession]:
    """End those of these ids, or all of this person, that were not ended yet, and return them."""
    which = LoginSession.id.in_(ids) if person is None else LoginSession.person == person
    ending = (
        update(LoginSession)
        .where(which, LoginSession.revoked_at.is_(None))
        .values(revoked_at=now, ended=why)
        .returning(LoginSession)
    )
    return list(session.scalars(ending))


def mark_seen(
    session: Session,
    identity: uuid.UUID,
    now: dt.datetime,
    *,
    idle_expires_at: dt.datetime,
    stale: dt.timedelta,
) -> None:
    """Record the use and let the session live on, unless a use younger than ``stale`` is recorded."""
    old = or_(LoginSession.last_seen_at.is_(None), LoginSession.last_seen_at < now - stale)
    living = LoginSession.revoked_at.is_(None)
    session.execute(
        update(LoginSession)
        .where(LoginSession.id == identity, old, living)
        .values(last_seen_at=now, idle_expires_at=idle_expires_at)
    )
