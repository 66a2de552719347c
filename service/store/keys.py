"""API keys at rest. Only the SHA-256 of a secret ever reaches this module."""

import datetime as dt
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from sqlalchemy import LargeBinary, Text, bindparam, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from service.store.access.tables import AccessEntry, Action
from service.store.read.page import Page, Position, older_than
from service.store.tables import ApiKey
from service.store.tenants import scope

_MAKE_KEY: Final = "make_key"
"""What the access log calls the operation by which one key makes another."""


def add_key(
    session: Session,
    *,
    name: str,
    secret_sha256: bytes,
    scopes: Sequence[str],
    expires_at: dt.datetime | None = None,
    tenant_id: uuid.UUID = scope.DEFAULT_ID,
    models: Sequence[str] | None = None,
    role: str | None = None,
) -> ApiKey:
    """Add a key and return it; the caller commits. ``models`` are the only ones that it reads."""
    key = ApiKey(
        id=uuid.uuid4(),
        name=name,
        secret_sha256=secret_sha256,
        scopes=list(scopes),
        role=role,
        models=None if models is None else list(models),
        tenant_id=tenant_id,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key


Making = Literal["made", "unknown_key", "not_allowed", "other_scopes", "other_models", "too_long"]
"""What came of asking for a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that the service asks for."""

    id: uuid.UUID
    name: str
    secret_sha256: bytes
    scopes: Sequence[str]
    role: str | None
    models: Sequence[str] | None
    expires_at: dt.datetime


_MAKE = text(
    "SELECT subtext_make_key(:own_secret, :id, :name, :secret_sha256, :scopes, :role, :models, :expires_at)"
).bindparams(
    bindparam("own_secret", type_=Text),
    bindparam("name", type_=Text),
    bindparam("role", type_=Text),
    bindparam("secret_sha256", type_=LargeBinary),
    bindparam("scopes", type_=ARRAY(Text)),
    bindparam("models", type_=ARRAY(Text)),
)


def make_key(session: Session, wanted: NewKey, own_secret: str) -> Making:
    """Let the database make a key of the transaction's tenant, and return what came of it.

    It makes none but for the secret of a living key that may make keys, and none that may do more.
    """
    values = {
        "own_secret": own_secret,
        "id": wanted.id,
        "name": wanted.name,
        "secret_sha256": wanted.secret_sha256,
        "scopes": list(wanted.scopes),
        "role": wanted.role,
        "models": None if wanted.models is None else list(wanted.models),
        "expires_at": wanted.expires_at,
    }
    made: Making = session.execute(_MAKE, values).scalar_one()
    return made


def are_of_one(session: Session, one: uuid.UUID | None, other: uuid.UUID | None) -> bool:
    """Tell whether both are one key, or one key made the other or both: then they are one identity."""
    if one is None or other is None:
        return False
    return bool(session.execute(select(func.subtext_of_one_key(str(one), str(other)))).scalar_one())


def withdraw_key(session: Session, identity: uuid.UUID) -> bool:
    """Let the database revoke a key of the transaction's tenant and what it made; False without one."""
    return bool(session.execute(select(func.subtext_revoke_key(identity))).scalar_one())


def list_page(session: Session, after: Position | None, limit: int) -> Page[ApiKey]:
    """Return one page of the keys that are met, revoked and expired ones too, newest first."""
    query = select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
    if after is not None:
        query = query.where(older_than(ApiKey.created_at, ApiKey.id, after))
    found = list(session.scalars(query.limit(limit + 1)))
    page = found[:limit]
    return Page(page, Position(page[-1].created_at, page[-1].id) if len(found) > limit else None)


def get_key(session: Session, secret_sha256: bytes) -> ApiKey | None:
    """Return the key with this digest, whatever its state.

    A transaction with a reader's rights meets it after `scope.look_for_key` alone.
    """
    return session.scalar(_OF_DIGEST, {"digest": secret_sha256})


_OF_DIGEST: Final = select(ApiKey).where(ApiKey.secret_sha256 == bindparam("digest"))
"""Built once: every request asks."""


def list_keys(session: Session) -> list[ApiKey]:
    """Return every key, revoked and expired ones too, oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def get_key_by_id(session: Session, identity: uuid.UUID) -> ApiKey | None:
    """Return the key with this id, whatever its state."""
    return session.get(ApiKey, identity)


def list_by_ids(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, ApiKey]:
    """Return the keys with these ids by id, whatever their state; without a query where there are none."""
    if not ids:
        return {}
    return {key.id: key for key in session.scalars(select(ApiKey).where(ApiKey.id.in_(ids)))}


def limit_key(session: Session, identity: uuid.UUID, until: dt.datetime) -> None:
    """Let a key expire at ``until``, unless it does so sooner already."""
    later = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > until)
    session.execute(update(ApiKey).where(ApiKey.id == identity, later).values(expires_at=until))


def count_expiring(
    session: Session, now: dt.datetime, *, within: dt.timedelta, used_since: dt.datetime
) -> int:
    """Count keys that work, were used since then, and will not work any more after ``within``."""
    query = select(func.count(ApiKey.id)).where(
        ApiKey.revoked_at.is_(None),
        ApiKey.expires_at > now,
        ApiKey.expires_at <= now + within,
        ApiKey.last_used_at >= used_since,
    )
    return session.execute(query).scalar_one()


def revoke_key(session: Session, identity: uuid.UUID, now: dt.datetime) -> bool:
    """Revoke a key with what it made, and those; False when there is none or it is revoked already."""
    changed = (
        update(ApiKey)
        .where(ApiKey.id == identity, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(ApiKey.id)
    )
    if session.scalar(changed) is None:
        return False
    line = ApiKey.id.in_(select(func.subtext_keys_made_by(identity)))
    rest = update(ApiKey).where(line, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
    # Each look waits for who is making a key by one of those that it revokes.
    while session.scalars(rest.returning(ApiKey.id)).all():
        pass
    return True


def list_revoked_with(session: Session, identity: uuid.UUID) -> list[uuid.UUID]:
    """Return the keys of a revoked key's making that were revoked in the same moment, oldest first."""
    revoked_at = select(ApiKey.revoked_at).where(ApiKey.id == identity).scalar_subquery()
    query = select(ApiKey.id).where(
        ApiKey.id.in_(select(func.subtext_keys_made_by(identity))), ApiKey.revoked_at == revoked_at
    )
    return list(session.scalars(query.order_by(ApiKey.created_at, ApiKey.id)))


class Orphan(NamedTuple):
    """A key that works, and a revoked one that it comes from."""

    key: ApiKey
    maker: ApiKey


def list_orphans(session: Session, now: dt.datetime) -> list[Orphan]:
    """Return the keys that work though one that they come from is revoked, oldest first.

    Since migration 0045 keys are revoked with what they made; those that were revoked before it left theirs
    at work. Of a key that does not say who made it the access log does, and else the first of its line
    stands for its maker. The transaction must meet every tenant's rows.
    """
    known = {key.id: key for key in list_keys(session)}
    makers: dict[uuid.UUID, set[uuid.UUID]] = {
        key.id: {one for one in [key.made_by or key.made_from] if one is not None} for key in known.values()
    }
    making = select(AccessEntry.key_id, AccessEntry.subject_ids).where(
        AccessEntry.action == Action.KEY_CHANGE, AccessEntry.operation == _MAKE_KEY
    )
    for maker, made in session.execute(making):
        if maker is None:  # a session, by a secret that it does not say
            continue
        for one in made:
            if one in known and known[one].made_by is None:
                makers[one].add(maker)
    working = (
        key
        for key in known.values()
        if key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
    )
    found = ((key, _revoked_maker(key.id, makers, known)) for key in working)
    return [Orphan(key, maker) for key, maker in found if maker is not None]


def _revoked_maker(
    identity: uuid.UUID, makers: Mapping[uuid.UUID, set[uuid.UUID]], known: Mapping[uuid.UUID, ApiKey]
) -> ApiKey | None:
    """Return the nearest key that this one comes from and that is revoked."""
    seen: set[uuid.UUID] = {identity}
    line = sorted(makers[identity])
    for one in line:  # which grows
        if one in seen or one not in known:
            continue
        seen.add(one)
        if known[one].revoked_at is not None:
            return known[one]
        line.extend(sorted(makers[one]))
    return None


def mark_used(session: Session, identity: uuid.UUID, now: dt.datetime, stale: dt.timedelta) -> None:
    """Record the use, unless one younger than ``stale`` is recorded; spares a write a request.

    The transaction has entered the key's tenant.
    """
    old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - stale)
    session.execute(update(ApiKey).where(ApiKey.id == identity, old).values(last_used_at=now))
