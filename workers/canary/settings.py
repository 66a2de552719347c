"""Settings of `subtext canary`, from SUBTEXT_* variables; a bad value refuses to start."""

from pathlib import Path
from typing import Self

from pydantic import DirectoryPath, Field, HttpUrl, field_validator, model_validator

from subtext_sidecar.contract.canary import CanaryKey, canary_key
from subtext_sidecar.contract.secret import read_secret
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, NAMES, is_tenant_name
from workers.settings import MonitoredSettings


class CanarySettings(MonitoredSettings):
    """Read once in the entry point and passed on."""

    canary_url: HttpUrl = Field(description="of the audited server as clients reach it, such as .../v1")
    canary_api_key_file: Path | None = Field(default=None, description="what that server asks clients for")
    canaries_file: Path
    served_model: str = Field(min_length=1, description="as clients and the plugin's records name it")
    tenant: str = Field(default=DEFAULT_TENANT, description="of that server's engines, as they name it")
    secret_file: Path = Field(description="the plugin's")
    canary_tokenizer_dir: DirectoryPath = Field(
        description="tokenizer and chat template of the audited model"
    )
    # Ten a minute are let in by an engine, and SubtextCanaryLost needs four a day.
    canary_interval_seconds: float = Field(default=120.0, ge=10.0, le=14_400.0)
    canary_deadline_seconds: float = Field(default=60.0, ge=1.0, le=3600.0)
    canary_answer_tokens: int = Field(default=24, ge=1, le=64)
    canary_window: int = Field(default=20, ge=5, le=1000, description="runs that a concept's recall is of")
    http_port: int = Field(default=8104, ge=0, le=65535)

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

    @field_validator("tenant")
    @classmethod
    def _is_tenant_name(cls, name: str) -> str:
        if not is_tenant_name(name):
            raise ValueError(f"{name[:80]!r} is no tenant's name: give {NAMES}")
        return name

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        _ = self.api_key, self.key
        return self
