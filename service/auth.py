"""API keys and sessions: what their secrets look like, and whether one may do what it asks. Pure."""

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal, Protocol, TypeVar

PREFIX: Final = "subtext_"  # lets secret scanners find a leaked key
_SECRET_BYTES: Final = 32


class Scope(StrEnum):
    """What a key may do. Every scope stands alone, except that ``admin`` implies all."""

    EXPLANATIONS_READ = "explanations:read"
    EXPLANATIONS_READ_TEXT = "explanations:read_text"  # lifts the withholding of text and tokens
    FLAGS_READ = "flags:read"
    INCIDENTS_TRIAGE = "incidents:triage"
    COVERAGE_READ = "coverage:read"
    AUDIT_READ = "audit:read"  # who read what, and what every key may do
    HOLDS_READ = "holds:read"
    HOLDS_WRITE = "holds:write"  # places legal holds, and asks or confirms to lift them
    RETENTION_WRITE = "retention:write"  # sets for how long rows are kept
    EXPORTS_CREATE = "exports:create"  # bundles of what the key may read
    ERASURES_READ = "erasures:read"
    ERASURES_WRITE = "erasures:write"  # asks that what is stored of somebody be erased
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"  # makes keys that may do no more than it may itself, and revokes such keys
    ADMIN = "admin"


class Role(StrEnum):
    """What somebody's work needs, as scopes. A key keeps the scopes that its role had when it was made."""

    READER = "reader"
    TEXT_READER = "text-reader"
    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    DATA_PROTECTION = "data-protection"


_METADATA: Final = (Scope.EXPLANATIONS_READ, Scope.FLAGS_READ, Scope.COVERAGE_READ)
SCOPES: Final[Mapping[Role, Sequence[Scope]]] = {
    # Everything but texts and tokens.
    Role.READER: _METADATA,
    Role.TEXT_READER: (*_METADATA, Scope.EXPLANATIONS_READ_TEXT),
    # Judges incidents by what was read.
    Role.REVIEWER: (*_METADATA, Scope.EXPLANATIONS_READ_TEXT, Scope.INCIDENTS_TRIAGE),
    # Tells whether the audit was done, and needs nobody's text for it.
    Role.AUDITOR: (
        *_METADATA,
        Scope.AUDIT_READ,
        Scope.HOLDS_READ,
        Scope.HOLDS_WRITE,
        Scope.EXPORTS_CREATE,
        Scope.ERASURES_READ,
    ),
    # Keeps the audit running. With an auditor he has the two keys that lift a hold.
    Role.OPERATOR: (
        Scope.COVERAGE_READ,
        Scope.EXPLANATIONS_READ,
        Scope.HOLDS_READ,
        Scope.HOLDS_WRITE,
        Scope.RETENTION_WRITE,
        Scope.KEYS_READ,
        Scope.KEYS_WRITE,
    ),
    # Answers those whose data it is, and reads none of it.
    Role.DATA_PROTECTION: (Scope.COVERAGE_READ, Scope.ERASURES_READ, Scope.ERASURES_WRITE),
}
"""By role. ``admin`` is of none."""


class KeyState(Protocol):
    """What judging needs of a stored key."""

    @property
    def secret_sha256(self) -> bytes:
        """SHA-256 of the secret."""

    @property
    def scopes(self) -> Sequence[str]:
        """Names of the granted scopes."""

    @property
    def expires_at(self) -> dt.datetime | None:
        """First moment at which the key no longer works."""

    @property
    def revoked_at(self) -> dt.datetime | None:
        """When the key was withdrawn."""


class SessionState(Protocol):
    """What judging needs of a stored session."""

    @property
    def token_sha256(self) -> bytes:
        """SHA-256 of the token in the cookie."""

    @property
    def idle_expires_at(self) -> dt.datetime:
        """First moment at which it no longer works, unless it is used before."""

    @property
    def expires_at(self) -> dt.datetime:
        """First moment at which it no longer works."""

    @property
    def revoked_at(self) -> dt.datetime | None:
        """When it was ended."""


K = TypeVar("K", bound=KeyState)
S = TypeVar("S", bound=SessionState)


class AuthenticationError(Exception):
    """Nobody that we know is asking. ``code`` is stable; the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ScopeError(Exception):
    """The key, or the session, is good but lacks ``missing``."""

    def __init__(self, missing: Sequence[str], who: str = "key") -> None:
        super().__init__(f"this {who} lacks the scope {' and '.join(missing)}")
        self.missing = tuple(missing)


def new_secret() -> str:
    """Return a fresh secret: the prefix and 256 random bits in URL-safe base64."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def _unknown_key() -> AuthenticationError:
    return AuthenticationError(
        "unknown_key", "this API key is not known; create one with: subtext key create"
    )


def new_token() -> str:
    """Return a fresh token of a session: 256 random bits in URL-safe base64."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def digest(secret: str) -> bytes:
    """Return what is stored of a secret.

    A plain SHA-256 is enough for 256 random bits: no dictionary reaches them, so no slow hash is
    needed.
    """
    return hashlib.sha256(secret.encode()).digest()


def living(key: K | None, secret: str, now: dt.datetime) -> K:
    """Return ``key``; AuthenticationError unless it belongs to ``secret`` and is valid at ``now``."""
    if key is None or not hmac.compare_digest(key.secret_sha256, digest(secret)):
        raise _unknown_key()
    return check_usable(key, now)


def check_usable(key: K | None, now: dt.datetime) -> K:
    """Return the key; AuthenticationError unless it is there and valid at ``now``."""
    if key is None:
        raise _unknown_key()
    if key.revoked_at is not None:
        raise AuthenticationError("revoked_key", "this API key was revoked")
    if key.expires_at is not None and key.expires_at <= now:
        raise AuthenticationError("expired_key", f"this API key expired at {key.expires_at.isoformat()}")
    return key


def living_session(found: S | None, token: str, now: dt.datetime) -> S:
    """Return the session; AuthenticationError unless it belongs to ``token`` and works at ``now``."""
    if found is None or not hmac.compare_digest(found.token_sha256, digest(token)):
        raise AuthenticationError("unknown_session", "this session is not known; sign in")
    match session_state_of(found, now):
        case "revoked":
            raise AuthenticationError("revoked_session", "this session was ended; sign in again")
        case "expired":
            raise AuthenticationError("expired_session", "this session is over; sign in again")
        case "valid":
            return found


def session_state_of(found: SessionState, now: dt.datetime) -> Literal["valid", "revoked", "expired"]:
    """Return whether a session works at ``now``, and if not, why. A key's own state is another question."""
    if found.revoked_at is not None:
        return "revoked"
    return "expired" if min(found.idle_expires_at, found.expires_at) <= now else "valid"


def state_of(key: KeyState, now: dt.datetime) -> Literal["valid", "revoked", "expired"]:
    """Return whether a key works at ``now``, and if not, why."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"


def allows(granted: Collection[str], scope: Scope) -> bool:
    """Tell whether the granted scopes include ``scope``."""
    return scope in granted or Scope.ADMIN in granted


def exceeds(wanted: Collection[str], granted: Collection[str]) -> list[str]:
    """Return those of the wanted scopes that are more than what is granted, sorted."""
    return sorted(scope for scope in wanted if not allows(granted, Scope(scope)))


def check_scopes(granted: Collection[str], required: Sequence[str], who: str = "key") -> None:
    """Raise ScopeError naming every required scope that is not granted."""
    missing = [scope for scope in required if not allows(granted, Scope(scope))]
    if missing:
        raise ScopeError(missing, who)
