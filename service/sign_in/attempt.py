"""A login on its way through the issuer, which the browser carries in a cookie until it comes back. Pure.

State, nonce and code verifier come from one secret, so that nothing is stored for whoever begins a login
and never comes back, and any process of the service can end one.
"""

import base64
import datetime as dt
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple, Self

from service.sign_in.origin import local_path

LIFETIME: Final = dt.timedelta(minutes=10)
_SECRET_BYTES: Final = 32
_PARTS: Final = 3


class Attempt(NamedTuple):
    """One login."""

    secret: str
    begun_at: int
    """In seconds of POSIX time."""
    next: str
    """The path to which the browser goes when it is signed in."""

    @classmethod
    def begin(cls, path: str, now: dt.datetime) -> Self:
        """Return a new one."""
        return cls(secrets.token_urlsafe(_SECRET_BYTES), int(now.timestamp()), path)

    @classmethod
    def read(cls, cookie: str | None, now: dt.datetime) -> Self | None:
        """Return the login of a cookie; None when it is none of ours or too old."""
        secret, *others = (cookie or "").split(".", _PARTS - 1)
        if len(others) != _PARTS - 1 or not secret or not others[0].isdecimal():
            return None
        path = local_path(_text(others[1]))
        age = now.timestamp() - int(others[0][:12])
        if path is None or not 0 <= age + 1 <= LIFETIME.total_seconds():
            return None
        return cls(secret, int(others[0][:12]), path)

    @property
    def cookie(self) -> str:
        """What the browser carries."""
        path = base64.urlsafe_b64encode(self.next.encode()).decode().rstrip("=")
        return f"{self.secret}.{self.begun_at}.{path}"

    @property
    def state(self) -> str:
        """What the issuer gives back with its answer (RFC 6749, 10.12)."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """What the ID token says again (OpenID Connect Core, 3.1.2.1)."""
        return self._derived("nonce")

    @property
    def code_verifier(self) -> str:
        """What proves to the issuer that the code is ours (RFC 7636)."""
        return self._derived("code verifier")

    @property
    def digest(self) -> bytes:
        """By which the store knows whether it made a session already."""
        return hashlib.sha256(self.secret.encode()).digest()

    def is_answered_by(self, state: str) -> bool:
        """Tell whether an answer with this state is to this login."""
        return hmac.compare_digest(self.state.encode(), state.encode())

    def _derived(self, what: str) -> str:
        derived = hmac.digest(self.secret.encode(), what.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(derived).decode().rstrip("=")


def _text(encoded: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return None
