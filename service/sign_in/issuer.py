"""The issuer over HTTP: its description, its keys, and codes for ID tokens. It may be slow or away."""

import datetime as dt
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key

from service.sign_in.attempt import Attempt
from service.sign_in.plan import Client
from service.sign_in.token import UnknownKeyError, Wanted, read_claims

_REMEMBER_SECONDS: Final = 3600.0
_FAILED_SECONDS: Final = 10.0
"""For which nobody asks again: each asker would hold a thread of the service until the time is over."""
_KEYS_AGAIN_SECONDS: Final = 30.0
_AT_ONCE: Final = 8
_KINDS: Final = frozenset({"RSA", "EC", "OKP"})
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class IssuerUnavailableError(Exception):
    """The issuer is away, slow, or does not describe itself as it has to; the message says which."""


class CodeRefusedError(Exception):
    """The issuer gives nothing for the code, as for one that was used."""


class Issuer:
    """One issuer. What it says of itself and its keys is remembered for an hour."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._described: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._failed: tuple[float, str] | None = None

    def login_url(self, attempt: Attempt) -> str:
        """Return where a browser signs in; raises IssuerUnavailableError."""
        where = self._metadata()["authorization_endpoint"]
        with self._oauth() as client:
            url, _ = client.create_authorization_url(
                where, state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.code_verifier
            )
        return str(url)

    def logout_url(self) -> str | None:
        """Return where a browser signs out (OpenID Connect RP-Initiated Logout 1.0), if anywhere."""
        try:
            where = self._metadata().get("end_session_endpoint")
        except IssuerUnavailableError:
            return None
        if not isinstance(where, str) or not self._may_be_asked(where):
            return None
        back = f"{self.client.redirect_base_url}/auth/session"
        asked = urlencode({"client_id": self.client.client_id, "post_logout_redirect_uri": back})
        return f"{where}{'&' if '?' in where else '?'}{asked}"

    def answers_name_issuer(self) -> bool:
        """Tell whether its answers say whose they are (RFC 9207)."""
        return bool(self._metadata().get("authorization_response_iss_parameter_supported"))

    def redeem(self, code: str, attempt: Attempt, now: dt.datetime) -> Mapping[str, Any]:
        """Return the claims of the ID token for a code.

        Raises IssuerUnavailableError, CodeRefusedError, or TokenError.
        """
        where = self._metadata()["token_endpoint"]
        with self._place(), self._oauth() as client, _reached():
            try:
                answer = client.fetch_token(
                    where, code=code, grant_type="authorization_code", code_verifier=attempt.code_verifier
                )
            except OAuthError as error:
                raise CodeRefusedError("the issuer gives nothing for this code; sign in again") from error
        token = answer.get("id_token")
        wanted = Wanted(self.client.issuer, self.client.client_id, attempt.nonce)
        try:
            return read_claims(token, self._key_set(_REMEMBER_SECONDS), wanted, now)
        except UnknownKeyError:
            return read_claims(token, self._key_set(_KEYS_AGAIN_SECONDS), wanted, now)

    def _metadata(self) -> Mapping[str, Any]:
        with self._lock:
            if self._described is None or self._is_old(self._described[0], _REMEMBER_SECONDS):
                self._described = (self._clock(), self._ask_once(self._describe))
            return self._described[1]

    def _key_set(self, seconds: float) -> KeySet:
        where = self._metadata()["jwks_uri"]
        with self._lock:
            if self._keys is None or self._is_old(self._keys[0], seconds):
                self._keys = (self._clock(), self._ask_once(lambda: _key_set(self._get(where))))
            return self._keys[1]

    def _is_old(self, at: float, seconds: float) -> bool:
        return self._clock() - at >= seconds

    def _ask_once(self, ask: Callable[[], Any]) -> Any:
        """Return what is asked; whoever asks soon after a failure is told of that one."""
        if self._failed is not None and not self._is_old(self._failed[0], _FAILED_SECONDS):
            raise IssuerUnavailableError(self._failed[1])
        try:
            return ask()
        except IssuerUnavailableError as error:
            self._failed = (self._clock(), str(error))
            raise

    def _describe(self) -> Mapping[str, Any]:
        found = self._get(f"{self.client.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.client.issuer:
            raise IssuerUnavailableError("what describes the issuer is another's: SUBTEXT_OIDC_ISSUER")
        for name in _ENDPOINTS:
            if not isinstance(found.get(name), str) or not self._may_be_asked(found[name]):
                raise IssuerUnavailableError(f"what describes the issuer has no {name} that is safe to ask")
        return found

    def _may_be_asked(self, url: str) -> bool:
        """Tell whether the address is HTTPS, or what the issuer's own is."""
        return urlsplit(url).scheme in {"https", urlsplit(self.client.issuer).scheme}

    def _get(self, url: str) -> Mapping[str, Any]:
        with _reached(), httpx2.Client(**self._how()) as client:
            answer = client.get(url)
            answer.raise_for_status()
            found = answer.json()
        if answer.status_code != HTTPStatus.OK or not isinstance(found, dict):
            raise IssuerUnavailableError("the issuer answers with something else than it has to")
        return found

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise IssuerUnavailableError("too many people sign in at once")
        try:
            yield
        finally:
            self._places.release()

    def _oauth(self) -> OAuth2Client:
        return OAuth2Client(
            client_id=self.client.client_id,
            client_secret=self.client.client_secret,
            scope=self.client.scopes,
            redirect_uri=self.client.redirect_uri,
            code_challenge_method="S256",
            **self._how(),
        )

    def _how(self) -> dict[str, Any]:
        # Nothing of the environment, which could name a proxy: what we say is secret.
        ca_file = self.client.ca_file
        verify = True if ca_file is None else ssl.create_default_context(cafile=ca_file)
        how = {"timeout": self.client.timeout_seconds, "follow_redirects": False, "trust_env": False}
        return how | {"verify": verify}


@contextmanager
def _reached() -> Iterator[None]:
    """Turn every way in which an answer fails to come into IssuerUnavailableError."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise IssuerUnavailableError(f"the issuer is away: {type(error).__name__}") from error


def _key_set(found: Mapping[str, Any]) -> KeySet:
    """Return the keys that may sign; of kinds that are not known none."""
    listed = found.get("keys")
    keys = []
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, dict) or one.get("use") == "enc" or one.get("kty") not in _KINDS:
            continue
        try:
            keys.append(import_key(one))
        except (JoseError, ValueError):
            continue
    if not keys:
        raise IssuerUnavailableError("the issuer shows no key that could sign")
    return KeySet(keys)
