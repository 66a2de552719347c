"""How keys and people sign in to this service, as its settings say."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.sign_in.cookies import Cookies
from service.sign_in.grants import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What the issuer knows us by, and where it is."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_base_url: str
    scopes: str = "openid profile"
    timeout_seconds: float = 5.0
    ca_file: Path | None = None

    @property
    def redirect_uri(self) -> str:
        """Where the issuer sends browsers back to."""
        return f"{self.redirect_base_url}/auth/callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeoplePlan:
    """Who says who people are, and what they may do."""

    client: Client
    grants: Sequence[Grant]
    groups_claim: str = "groups"
    name_claim: str = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPlan:
    """How long sessions last, what carries them, and who may begin one."""

    idle: dt.timedelta = dt.timedelta(hours=1)
    """After the last use."""
    lifetime: dt.timedelta = dt.timedelta(hours=12)
    """After the sign-in, however often it is used."""
    cookies: Cookies = field(default_factory=Cookies)
    origin: str | None = None
    """Of our own pages, as browsers see it; None: as the request names it."""
    people: PeoplePlan | None = None
    """None: API keys alone."""
