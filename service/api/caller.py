"""Who asks: an API key, or a session, which is a person's or a key's. Found, judged and noted as used."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from service import auth
from service.store import keys
from service.store.people import sessions
from service.store.people.tables import LoginSession
from service.store.tables import ApiKey
from service.store.tenants import scope

_PEOPLE: Final = uuid.UUID("0e5f7a3c-3b8e-4f0e-9d0a-6a2f5b1c7d94")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What was found for a secret or a token, whatever its state: a key, a session, or a key's session."""

    key: ApiKey | None = None
    session: LoginSession | None = None

    @property
    def tenant_id(self) -> uuid.UUID:
        """Whose it is."""
        found = self.session or self.key
        if found is None:
            raise LookupError("an asker has a key or a session")
        return found.tenant_id

    @property
    def id(self) -> uuid.UUID:
        """Of the session or the key."""
        found = self.session or self.key
        if found is None:
            raise LookupError("an asker has a key or a session")
        return found.id

    @property
    def names(self) -> Mapping[str, Any]:
        """Return how the access log and an incident's history name it, by column."""
        return {
            "key_id": self.key.id if self.key else None,
            "key_name": self.key.name if self.key else None,
            "session_id": self.session.id if self.session else None,
            "issuer": self.session.issuer if self.session else None,
            "person": self.session.person if self.session else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and what the key or the session grants."""

    scopes: frozenset[str]
    reach: scope.Reach
    """Whose rows are read."""
    key_id: uuid.UUID | None = None
    """None: a person."""
    key_name: str | None = None
    session_id: uuid.UUID | None = None
    """None: by the key itself."""
    issuer: str | None = None
    person: str | None = None
    display_name: str | None = None
    roles: tuple[str, ...] = ()
    idle_expires_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None

    @property
    def identity(self) -> uuid.UUID:
        """The key's id, or what tells the person from everybody else, the same in each of his sessions."""
        return self.key_id or uuid.uuid5(_PEOPLE, f"{self.issuer}\n{self.person}")

    @property
    def names(self) -> Mapping[str, Any]:
        """Return how the access log and an incident's history name him, by column."""
        same = ("key_id", "key_name", "session_id", "issuer", "person")
        return {name: getattr(self, name) for name in same}

    @property
    def may_read_text(self) -> bool:
        """Whether explanation text and tokens may be shown."""
        return auth.allows(self.scopes, auth.Scope.EXPLANATIONS_READ_TEXT)

    def listing(self, name: str) -> str:
        """Return the name of a listing as it is the caller's: a cursor is of no use to another tenant."""
        tenant = self.reach.tenant
        return name if tenant == scope.DEFAULT_ID else f"{name} of {tenant}"


def find_by_secret(session: Session, secret: str) -> Asker | None:
    """Return the key of this secret, whatever its state. Call it first in the transaction."""
    digest = auth.digest(secret)
    scope.look_for_key(session, digest)
    key = keys.get_key(session, digest)
    return None if key is None else Asker(key=key)


def find_by_token(session: Session, token: str) -> Asker | None:
    """Return the session of this token, whatever its state. Call it first in the transaction."""
    digest = auth.digest(token)
    scope.look_for_session(session, digest)
    found = sessions.get_session(session, digest)
    if found is None:
        return None
    if found.key_id is None:
        return Asker(session=found)
    scope.set_tenant(session, found.tenant_id)
    return Asker(session=found, key=keys.get_key_by_id(session, found.key_id))


def caller_of(asker: Asker) -> Caller:
    """Return the caller with what a living key or session grants; a key's session has the key's rights."""
    key, found = asker.key, asker.session
    named = dict(asker.names)
    if found is not None:
        named |= {"idle_expires_at": found.idle_expires_at, "expires_at": found.expires_at}
    if key is not None:
        models, scopes = key.models, key.scopes
        named |= {"display_name": key.name, "roles": () if key.role is None else (key.role,)}
        if found is None:
            named["expires_at"] = key.expires_at
    elif found is not None:
        models, scopes = found.models, found.scopes
        named |= {"display_name": found.display_name, "roles": tuple(found.roles)}
    else:
        raise LookupError("an asker has a key or a session")
    reach = scope.Reach(asker.tenant_id, None if models is None else tuple(models))
    return Caller(scopes=frozenset(scopes), reach=reach, **named)


def check_living(asker: Asker | None, secret: str | None, token: str | None, now: dt.datetime) -> Asker:
    """Return the asker; AuthenticationError unless key or session, and a session's key, work at ``now``."""
    if token is None:
        auth.living(asker.key if asker else None, secret or "", now)
    else:
        found = auth.living_session(asker.session if asker else None, token, now)
        if found.key_id is not None:
            auth.check_usable(asker.key if asker else None, now)
    if asker is None:
        raise LookupError("nobody was found, and that was not refused")
    return asker
