"""A small OpenID Connect issuer over loopback HTTP, with real signatures, that can be made to lie."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, Key

CLIENT_ID, CLIENT_SECRET = "subtext & console", "s:ecret/%"
Claims = dict[str, Any]


class _Grant(NamedTuple):
    challenge: str
    nonce: str


class TestIssuer:
    """Signs in whoever ``person`` says; what a test sets is undone by `reset`."""

    __test__ = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.codes: dict[str, _Grant] = {}
        self.kept_key: Key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        self.reset()

    def reset(self) -> None:
        """Be honest again, with one key and nobody in a group."""
        self.person: Claims = {"sub": "248289761001", "name": "Anna", "groups": []}
        self.key, self.shown = self.kept_key, [self.kept_key]
        self.algorithm = "ES256"
        self.alter: Callable[[Claims], Claims] = dict
        self.sign: Callable[[Claims], str] = self._sign
        self.takes_codes_again = False
        self.is_away = False
        self.codes.clear()

    def authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser goes back to, with a code."""
        assert asked["client_id"] == CLIENT_ID
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = secrets.token_urlsafe()
        self.codes[code] = _Grant(asked["code_challenge"], asked["nonce"])
        answer = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def redeem(self, told: dict[str, str], authorization: str) -> Claims:
        """Return the token endpoint's answer."""
        login = f"{quote(CLIENT_ID, safe='')}:{quote(CLIENT_SECRET, safe='')}"
        plain = f"{CLIENT_ID}:{CLIENT_SECRET}"
        known = [f"Basic {base64.b64encode(one.encode()).decode()}" for one in (login, plain)]
        if authorization not in known:
            return {"error": "invalid_client"}
        grant = self.codes.get(told["code"])
        if grant is None or challenge_of(told["code_verifier"]) != grant.challenge:
            return {"error": "invalid_grant"}
        if not self.takes_codes_again:
            del self.codes[told["code"]]
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": grant.nonce}
        token = self.sign(self.alter(claims | self.person))
        return {"access_token": "a", "token_type": "Bearer", "id_token": token}

    def _sign(self, claims: Claims) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])

    def describe(self) -> Claims:
        """Return what describes the issuer."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/logout",
            "authorization_response_iss_parameter_supported": True,
        }


def challenge_of(verifier: str) -> str:
    """Return the challenge of a verifier (RFC 7636, S256)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@contextmanager
def running_issuer() -> Iterator[TestIssuer]:
    """Serve an issuer until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.issuer = TestIssuer(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.issuer  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    @property
    def issuer(self) -> TestIssuer:
        found: TestIssuer = self.server.issuer  # type: ignore[attr-defined]
        return found

    def do_GET(self) -> None:  # http.server's name
        parts = urlsplit(self.path)
        if self.issuer.is_away:
            self.send_error(503)
        elif parts.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.send_response(302)
            self.send_header("Location", self.issuer.authorize(asked))
            self.end_headers()
        elif parts.path == "/.well-known/openid-configuration":
            self._answer(self.issuer.describe())
        else:
            self._answer({"keys": [key.as_dict(private=False) for key in self.issuer.shown]})

    def do_POST(self) -> None:  # http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        told = {name: values[0] for name, values in parse_qs(body).items()}
        self._answer(self.issuer.redeem(told, self.headers.get("Authorization", "")))

    def _answer(self, document: Claims) -> None:
        content = json.dumps(document).encode()
        self.send_response(400 if "error" in document else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing on stderr."""
