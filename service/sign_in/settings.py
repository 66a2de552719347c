"""What the service is told about signing in: SUBTEXT_SESSION_* and SUBTEXT_OIDC_*, of its settings."""

import datetime as dt
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from service.sign_in.cookies import Cookies
from service.sign_in.grants import read_grants
from service.sign_in.origin import origin_of
from service.sign_in.plan import Client, PeoplePlan, SignInPlan
from subtext_sidecar.contract.listening import is_loopback
from subtext_sidecar.contract.secret import read_secret

_TOGETHER: Final = (
    "oidc_issuer",
    "oidc_client_id",
    "oidc_client_secret_file",
    "oidc_redirect_base_url",
    "oidc_grants_file",
)


class SignInSettings(BaseSettings):
    """Mixed into the service's settings, whose address and public URL it goes by."""

    http_host: str
    public_url: str
    session_idle_minutes: float = Field(default=60.0, ge=1, le=1440, description="without use")
    session_hours: float = Field(default=12.0, gt=0, le=720, description="however often it is used")
    session_plain_http: bool = Field(
        default=False, description="sessions over plain HTTP for a browser on this machine alone"
    )
    oidc_issuer: str | None = Field(default=None, description="as its ID tokens write it, to the letter")
    oidc_client_id: str | None = Field(default=None, min_length=1)
    oidc_client_secret_file: Path | None = None
    oidc_redirect_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#@]+(/[\w.~-]+)*$",
        description="how browsers reach the service; the issuer knows it with /auth/callback",
    )
    oidc_grants_file: Path | None = Field(default=None, description="which group may do what")
    oidc_groups_claim: str = Field(default="groups", min_length=1, description="dots lead into objects")
    oidc_name_claim: str = Field(default="name", min_length=1, description="a person's name, to show")
    oidc_scopes: str = Field(default="openid profile", pattern=r"^(\S+ )*openid( \S+)*$")
    oidc_timeout_seconds: float = Field(default=5.0, gt=0, le=30, description="of each wait for the issuer")
    oidc_ca_file: Path | None = Field(default=None, description="certificates to trust for the issuer")

    @property
    def plan(self) -> SignInPlan:
        """How people sign in; ValueError when a file cannot be read or is wrong."""
        base = self.oidc_redirect_base_url or self.public_url
        return SignInPlan(
            idle=dt.timedelta(minutes=self.session_idle_minutes),
            lifetime=dt.timedelta(hours=self.session_hours),
            cookies=Cookies(is_plain=self.session_plain_http),
            origin=origin_of(base) if base else None,
            people=self._people(),
        )

    def _people(self) -> PeoplePlan | None:
        if not any(getattr(self, name) for name in _TOGETHER):
            return None
        missing = [f"SUBTEXT_{name.upper()}" for name in _TOGETHER if not getattr(self, name)]
        if missing:
            raise ValueError(f"{' and '.join(missing)}: set it too, or no SUBTEXT_OIDC_* at all")
        if self.oidc_client_secret_file is None or self.oidc_grants_file is None:
            raise LookupError("none is missing")
        for name in ("oidc_issuer", "oidc_redirect_base_url"):
            _check_scheme(f"SUBTEXT_{name.upper()}", getattr(self, name))
        if self.oidc_ca_file is not None and not self.oidc_ca_file.is_file():
            raise ValueError(f"SUBTEXT_OIDC_CA_FILE: there is no file {self.oidc_ca_file}")
        client = Client(
            issuer=self.oidc_issuer or "",
            client_id=self.oidc_client_id or "",
            client_secret=read_secret("SUBTEXT_OIDC_CLIENT_SECRET_FILE", self.oidc_client_secret_file),
            redirect_base_url=self.oidc_redirect_base_url or "",
            scopes=self.oidc_scopes,
            timeout_seconds=self.oidc_timeout_seconds,
            ca_file=self.oidc_ca_file,
        )
        return PeoplePlan(
            client=client,
            grants=read_grants(self.oidc_grants_file),
            groups_claim=self.oidc_groups_claim,
            name_claim=self.oidc_name_claim,
        )

    @model_validator(mode="after")
    def _keeps_plain_sessions_here(self) -> Self:
        if self.session_plain_http and not is_loopback(self.http_host):
            raise ValueError(
                f"SUBTEXT_SESSION_PLAIN_HTTP is true and SUBTEXT_HTTP_HOST is {self.http_host!r}, which"
                " other machines can reach: unset the first, or set the second to 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _has_plan(self) -> Self:
        _ = self.plan
        return self


def _check_scheme(variable: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        raise ValueError(f"{variable}: write https://host; only loopback may be plain http")
