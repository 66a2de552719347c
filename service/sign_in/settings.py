"""What the service is told about signing in, by SUBTEXT_SESSION_* variables; part of its settings."""

import datetime as dt
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from service.sign_in.cookies import Cookies
from service.sign_in.origin import origin_of
from service.sign_in.plan import SignInPlan
from subtext_sidecar.contract.listening import is_loopback


class SignInSettings(BaseSettings):
    """Mixed into the service's settings, whose address and public URL it goes by."""

    http_host: str
    public_url: str
    session_idle_minutes: float = Field(default=60.0, ge=1, le=1440, description="without use")
    session_hours: float = Field(default=12.0, gt=0, le=720, description="however often it is used")
    session_plain_http: bool = Field(
        default=False, description="sessions over plain HTTP for a browser on this machine alone"
    )

    @property
    def plan(self) -> SignInPlan:
        """How people sign in."""
        return SignInPlan(
            idle=dt.timedelta(minutes=self.session_idle_minutes),
            lifetime=dt.timedelta(hours=self.session_hours),
            cookies=Cookies(is_plain=self.session_plain_http),
            origin=origin_of(self.public_url) if self.public_url else None,
        )

    @model_validator(mode="after")
    def _keeps_plain_sessions_here(self) -> Self:
        if self.session_plain_http and not is_loopback(self.http_host):
            raise ValueError(
                f"SUBTEXT_SESSION_PLAIN_HTTP is true and SUBTEXT_HTTP_HOST is {self.http_host!r}, which"
                " other machines can reach: unset the first, or set the second to 127.0.0.1"
            )
        return self
