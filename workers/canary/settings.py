"""Settings of `subtext canary`, from SUBTEXT_* variables; a bad value refuses to start."""

from pathlib import Path
from typing import Self

from pydantic import Field, HttpUrl, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.store.engine import with_password
from subtext_sidecar.contract.canary import CanaryKey, canary_key
from subtext_sidecar.contract.listening import PlainHttp, TlsFiles, check_address, tls_files
from subtext_sidecar.contract.secret import read_secret


class CanarySettings(BaseSettings):
    """Read once in the entry point and passed on."""

    model_config = SettingsConfigDict(env_prefix="SUBTEXT_", frozen=True)

    canary_url: HttpUrl = Field(description="of the audited server as clients reach it, such as .../v1")
    canary_api_key_file: Path | None = Field(default=None, description="what that server asks clients for")
    canaries_file: Path
    served_model: str = Field(min_length=1, description="as clients and the plugin's records name it")
    secret_file: Path = Field(description="the plugin's")
    database_url: SecretStr
    database_password_file: Path | None = Field(default=None, description="instead of one in the URL")
    # Ten a minute are let in by an engine, and SubtextCanaryLost needs four a day.
    canary_interval_seconds: float = Field(default=120.0, ge=10.0, le=14_400.0)
    canary_deadline_seconds: float = Field(default=60.0, ge=1.0, le=3600.0)
    canary_answer_tokens: int = Field(default=24, ge=1, le=64)
    canary_window: int = Field(default=20, ge=5, le=1000, description="runs that a concept's recall is of")
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8104, ge=0, le=65535)
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    plain_http: PlainHttp | None = Field(default=None, description="why plain HTTP may leave this machine")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @property
    def database(self) -> str:
        """The database's URL with its password; ValueError when the file of that cannot be read."""
        url = self.database_url.get_secret_value()
        if self.database_password_file is None:
            return url
        return with_password(
            url, read_secret("SUBTEXT_DATABASE_PASSWORD_FILE", self.database_password_file)
        )

    @property
    def api_key(self) -> str | None:
        """What its file says; ValueError when that cannot be read."""
        if self.canary_api_key_file is None:
            return None
        return read_secret("SUBTEXT_CANARY_API_KEY_FILE", self.canary_api_key_file)

    @property
    def key(self) -> CanaryKey:
        """The canaries' key; ValueError when the secret's file cannot be read."""
        try:
            # As the plugin does: text of another line end or encoding would be another key.
            secret = self.secret_file.read_bytes()
        except OSError as error:
            raise ValueError(
                f"SUBTEXT_SECRET_FILE is {self.secret_file}, which cannot be read: {error.strerror}"
            ) from error
        if not secret.rstrip(b"\r\n"):
            raise ValueError(
                f"SUBTEXT_SECRET_FILE is {self.secret_file}, which is empty: give the plugin's"
            )
        return canary_key(secret)

    @property
    def tls(self) -> TlsFiles | None:
        """What to serve metrics and health with, None for plain HTTP."""
        return tls_files(self.tls_cert_file, self.tls_key_file)

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        _ = self.database, self.api_key, self.key
        check_address(self.http_host, self.tls, self.plain_http)
        return self
