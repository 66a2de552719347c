"""How people sign in to this service, as its settings say."""

import datetime as dt
from dataclasses import dataclass, field

from service.sign_in.cookies import Cookies


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInPlan:
    """How long sessions last and what carries them."""

    idle: dt.timedelta = dt.timedelta(hours=1)
    """After the last use."""
    lifetime: dt.timedelta = dt.timedelta(hours=12)
    """After the sign-in, however often it is used."""
    cookies: Cookies = field(default_factory=Cookies)
    origin: str | None = None
    """Of our own pages, as browsers see it; None: as the request names it."""
