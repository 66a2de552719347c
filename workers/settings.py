"""Settings of the worker process, from SUBTEXT_* variables; a bad value refuses to start."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.store.engine import with_password
from subtext_sidecar.contract.listening import PlainHttp, TlsFiles, check_address, tls_files
from subtext_sidecar.contract.secret import read_secret
from workers.vectors import plan


class MonitoredSettings(BaseSettings):
    """What each process needs that reads the store and shows its metrics and health."""

    model_config = SettingsConfigDict(env_prefix="SUBTEXT_", frozen=True)

    database_url: SecretStr
    database_password_file: Path | None = Field(default=None, description="instead of one in the URL")
    http_host: str = "127.0.0.1"
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
    def tls(self) -> TlsFiles | None:
        """What to serve metrics and health with, None for plain HTTP."""
        return tls_files(self.tls_cert_file, self.tls_key_file)

    @model_validator(mode="after")
    def _is_usable_and_private(self) -> Self:
        if self.database_password_file is not None:
            _ = self.database
        check_address(self.http_host, self.tls, self.plain_http)
        return self


class WorkerSettings(MonitoredSettings):
    """Read once in the entry point and passed on."""

    redis_url: SecretStr
    redis_password_file: Path | None = Field(default=None, description="instead of one in the URL")
    decoder_dir: Path
    concepts_file: Path
    concept_calibration_file: Path | None = Field(
        default=None, description="made by `subtext calibrate concepts`; without one every flag is a lead"
    )
    served_model: str | None = Field(default=None, min_length=1, description="default: the decoder's model")
    http_port: int = Field(default=8103, ge=0, le=65535)
    candidates: int = Field(
        default=4, ge=1, le=16, description="readings of a vector; as in the calibration"
    )
    batch_entries: int = Field(default=16, ge=1, le=1024)
    max_deliveries: int = Field(default=5, ge=1, le=100)
    reclaim_idle_seconds: float = Field(default=60.0, ge=1.0)
    batch_deadline_seconds: float = Field(
        default=600.0, ge=1.0, description="after it a batch hangs, /healthz fails and the process ends"
    )
    decoder_recovery_seconds: float = Field(
        default=30.0, ge=0.0, description="that a broken decoder is given before the process ends"
    )
    anomaly_fdr: float = Field(
        default=0.1, gt=0.0, lt=1.0, description="accepted share of false ones among a window's discoveries"
    )
    anomaly_window_seconds: float = Field(
        default=3600.0, gt=0.0, description="between two windows in which requests are tested together"
    )
    anomaly_window_requests: int = Field(
        default=20, ge=1, description="least of a window, unless one of them waits for a day"
    )
    anomaly_settle_seconds: float = Field(
        default=900.0, ge=0.0, description="without a new row until a request is complete"
    )
    redis_timeout_seconds: float = Field(default=10.0, gt=1.0)
    vectors_file: Path | None = Field(
        default=None, description="whose vectors are kept, and for how long; without one none is"
    )
    vectors_key_file: Path | None = Field(default=None, description="that `subtext vectors keygen` wrote")

    @property
    def redis_password(self) -> str | None:
        """What the file of it says, None for what the URL says."""
        if self.redis_password_file is None:
            return None
        return read_secret("SUBTEXT_REDIS_PASSWORD_FILE", self.redis_password_file)

    @property
    def keeping(self) -> plan.Keeping | None:
        """What vectors are kept, None for none; ValueError names the setting and the fix."""
        if self.vectors_file is None:
            return None
        if self.vectors_key_file is None:
            raise ValueError(
                "SUBTEXT_VECTORS_FILE names vectors to keep, and nothing seals them:"
                " set SUBTEXT_VECTORS_KEY_FILE to what `subtext vectors keygen` wrote"
            )
        return plan.load(self.vectors_file, self.vectors_key_file)

    @model_validator(mode="after")
    def _has_what_files_hold(self) -> Self:
        _ = self.redis_password, self.keeping
        return self
