"""The two cookies: of the session, and of a login on its way through the issuer."""

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from subtext_sidecar.contract.listening import is_loopback

SESSION_COOKIE: Final = "__Host-subtext"
_LOGIN_COOKIE: Final = "__Host-subtext-login"
_PLAIN_SESSION_COOKIE: Final = "subtext-plain"
_PLAIN_LOGIN_COOKIE: Final = "subtext-plain-login"


@dataclass(frozen=True, slots=True)
class Cookies:
    """Names and attributes. Browsers keep the usual ones to HTTPS, to this host and to no subdomain.

    ``is_plain`` is for plain HTTP on loopback: other names, and neither read nor set where the request was
    for another host, so that a proxy or a name that leads here gives nobody a session in the clear.
    """

    is_plain: bool = False

    @property
    def session(self) -> str:
        """Name of the session's cookie."""
        return _PLAIN_SESSION_COOKIE if self.is_plain else SESSION_COOKIE

    @property
    def login(self) -> str:
        """Name of the cookie of a login that is not over."""
        return _PLAIN_LOGIN_COOKIE if self.is_plain else _LOGIN_COOKIE

    def may_be_used(self, request: Request) -> bool:
        """Tell whether a cookie may travel with this request and its answer."""
        return not self.is_plain or is_loopback(request.url.hostname or "")

    def read(self, request: Request, name: str) -> str | None:
        """Return the cookie's value."""
        return request.cookies.get(name) if self.may_be_used(request) else None

    def put(self, response: Response, name: str, value: str, max_age_seconds: int) -> None:
        """Set the cookie; whoever calls has asked `may_be_used`."""
        response.set_cookie(
            name,
            value,
            max_age=max_age_seconds,
            path="/",
            secure=not self.is_plain,
            httponly=True,
            samesite="lax",
        )

    def drop(self, response: Response, name: str) -> None:
        """Let the browser forget the cookie."""
        self.put(response, name, "", 0)
