"""What the service and its commands are told from outside, by SUBTEXT_* variables only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.evidence.note import NoteError, Signer, read_signer
from service.sign_in.settings import SignInSettings
from service.store.engine import driver_url, with_password
from service.store.identity import DEFAULT_TENANT
from service.store.vectors.sealing import WrappingKey, check_private, parse
from service.webhooks.destinations import Destination, read_destinations
from subtext_sidecar.contract.listening import PlainHttp, TlsFiles, check_address, tls_files
from subtext_sidecar.contract.secret import read_secret
from subtext_sidecar.contract.subject import tenant_secret

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class SettingsError(ValueError):
    """One or more settings are missing or wrong; the message names each and its fix."""


class StoreSettings(BaseSettings):
    """What every command that only talks to the database needs."""

    model_config = SettingsConfigDict(env_prefix="SUBTEXT_", frozen=True, extra="ignore")

    database_url: SecretStr = Field(description="postgresql://user:password@host/name")
    database_password_file: Path | None = Field(default=None, description="instead of one in the URL")
    log_level: LogLevel = "INFO"

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        driver_url(url.get_secret_value())
        return url

    @property
    def database(self) -> str:
        """The URL with its password; ValueError when the file of that cannot be read."""
        url = self.database_url.get_secret_value()
        if self.database_password_file is None:
            return url
        return with_password(
            url, read_secret("SUBTEXT_DATABASE_PASSWORD_FILE", self.database_password_file)
        )

    @model_validator(mode="after")
    def _has_password(self) -> Self:
        _ = self.database
        return self


class KeySettings(StoreSettings):
    """What ``subtext key`` needs."""

    key_lifetime_days: float = Field(
        default=90.0, gt=0, le=36_500, description="of a new key, unless the command says another"
    )


class VectorSettings(StoreSettings):
    """What ``subtext vectors`` needs."""

    vectors_key_file: Path | None = Field(default=None, description="that `subtext vectors keygen` wrote")

    @property
    def wrapping(self) -> WrappingKey:
        """The key; SettingsError when there is no file, others may read it, or it holds none."""
        name = "SUBTEXT_VECTORS_KEY_FILE"
        if self.vectors_key_file is None:
            raise SettingsError(f"{name} is not set; give what `subtext vectors keygen` wrote")
        try:
            encoded = read_secret(name, self.vectors_key_file)
            check_private(self.vectors_key_file, named=name)
            return parse(encoded, named=f"{name} is {self.vectors_key_file}, which")
        except ValueError as error:
            raise SettingsError(str(error)) from error


class CheckpointSettings(StoreSettings):
    """Where the evidence log's checkpoints are."""

    checkpoint_folder: Path = Field(description="of the log's checkpoints; no database login may write it")

    @field_validator("checkpoint_folder")
    @classmethod
    def _is_folder(cls, folder: Path) -> Path:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: create it, or mount what holds the checkpoints")
        return folder


class LogSettings(CheckpointSettings):
    """What ``subtext log`` needs."""

    log_key_file: Path = Field(description="that `subtext log keygen` wrote")
    checkpoint_every_seconds: float = Field(default=5.0, ge=0.1, le=3600)
    http_host: str = Field(default="127.0.0.1", min_length=1)
    http_port: int = Field(default=8105, ge=0, le=65535)
    plain_http: PlainHttp | None = Field(default=None, description="why plain HTTP may leave this machine")

    @property
    def signer(self) -> Signer:
        """The key; ValueError when its file cannot be read, may be read by others, or holds none."""
        encoded = read_secret("SUBTEXT_LOG_KEY_FILE", self.log_key_file)
        if self.log_key_file.stat().st_mode & 0o077:
            raise ValueError(
                f"SUBTEXT_LOG_KEY_FILE is {self.log_key_file}, which others may read: chmod 600"
            )
        try:
            return read_signer(encoded)
        except NoteError as error:
            raise ValueError(f"SUBTEXT_LOG_KEY_FILE is {self.log_key_file}: {error}") from error

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        check_address(self.http_host, None, self.plain_http)
        _ = self.signer
        return self


class ErasingSettings(StoreSettings):
    """What carries out erasures needs, but for where Redis is."""

    redis_password_file: Path | None = Field(default=None, description="instead of one in the URL")
    erase_settle_seconds: float = Field(
        default=600.0, ge=0, le=86_400, description="how long nothing more may be found before one is done"
    )

    @property
    def redis_password(self) -> str | None:
        """The password in its file; None without one. ValueError when it cannot be read."""
        if self.redis_password_file is None:
            return None
        return read_secret("SUBTEXT_REDIS_PASSWORD_FILE", self.redis_password_file)

    @model_validator(mode="after")
    def _has_redis_password(self) -> Self:
        _ = self.redis_password
        return self


class KeeperSettings(ErasingSettings):
    """What ``subtext keeper`` needs."""

    export_folder: Path = Field(description="of exports' files, which the service reads")
    export_days: float = Field(default=7.0, gt=0, le=366, description="until a file is deleted")
    export_signed_within_seconds: float = Field(
        default=300.0, gt=0, le=86_400, description="to wait for the log to sign an export's entry"
    )
    redis_url: SecretStr | None = Field(
        default=None, description="of the streams that workers read; None: erasures wait"
    )
    http_host: str = Field(default="127.0.0.1", min_length=1)
    http_port: int = Field(default=8106, ge=0, le=65535)
    plain_http: PlainHttp | None = Field(default=None, description="why plain HTTP may leave this machine")

    @field_validator("export_folder")
    @classmethod
    def _is_folder(cls, folder: Path) -> Path:
        return _existing(folder)

    @model_validator(mode="after")
    def _stays_private(self) -> Self:
        check_address(self.http_host, None, self.plain_http)
        return self


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: create it, or mount what holds the exports")
    return folder


class EraseSettings(ErasingSettings):
    """What ``subtext erase`` needs."""

    redis_url: SecretStr = Field(description="redis://host:port/0, of the streams that workers read")
    export_folder: Path | None = Field(
        default=None, description="of exports' files; none: erasures of a tenant with exports wait"
    )

    @field_validator("export_folder")
    @classmethod
    def _has_exports(cls, folder: Path | None) -> Path | None:
        return None if folder is None else _existing(folder)


class ServiceSettings(SignInSettings, StoreSettings):
    """What ``subtext service`` needs."""

    http_host: str = Field(default="127.0.0.1", min_length=1)
    http_port: int = Field(default=8080, ge=1, le=65535)
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    plain_http: PlainHttp | None = Field(default=None, description="why plain HTTP may leave this machine")
    root_path: str = Field(
        default="", pattern=r"^(/[\w.~-]+)*$", description="prefix under which a proxy shows the service"
    )
    database_pool_size: int = Field(default=10, ge=1, le=100, description="connections, a hard bound")
    query_timeout_seconds: float = Field(default=10.0, gt=0, le=300, description="of one statement")
    webhooks_file: Path | None = Field(default=None, description="who is told of incidents")
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/?#@]+(/[\w.~-]+)*)?$",
        description="how people reach the service, for links in webhooks",
    )
    grafana_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/?#@\"'<>]+(/[\w.~-]+)*)?$",
        description="of the dashboard's time series, to which the console then leads",
    )
    export_folder: Path | None = Field(
        default=None, description="of exports' files, which `subtext keeper` writes; none: no exports"
    )
    subject_secret_file: Path | None = Field(
        default=None, description="what subject keys are made with, the engines' own file"
    )
    prevalence_hours: int = Field(
        default=24, ge=1, le=168, description="least length of the window of the prevalence metrics"
    )
    prevalence_every_seconds: float = Field(
        default=300.0, ge=1, le=86_400, description="between two times that they are worked out"
    )
    prevalence_thresholds: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=dict, description="by concept, the share of requests above which it raises an alert"
    )

    @field_validator("export_folder")
    @classmethod
    def _has_exports(cls, folder: Path | None) -> Path | None:
        return None if folder is None else _existing(folder)

    @field_validator("prevalence_thresholds", mode="before")
    @classmethod
    def _parse_thresholds(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return dict(_threshold(part) for part in value.split(",") if part.strip())

    @property
    def webhooks(self) -> Sequence[Destination]:
        """Who is told of incidents; ValueError when the file is wrong."""
        return [] if self.webhooks_file is None else read_destinations(self.webhooks_file)

    @property
    def subject_secret(self) -> bytes | None:
        """The secret of subject keys; ValueError when its file cannot be read or holds too little."""
        if self.subject_secret_file is None:
            return None
        secret = read_secret("SUBTEXT_SUBJECT_SECRET_FILE", self.subject_secret_file).encode()
        try:
            tenant_secret(secret, DEFAULT_TENANT)
        except ValueError as error:
            raise ValueError(
                f"SUBTEXT_SUBJECT_SECRET_FILE is {self.subject_secret_file}: {error}"
            ) from error
        return secret

    @property
    def tls(self) -> TlsFiles | None:
        """What to serve HTTPS with, None for plain HTTP."""
        return tls_files(self.tls_cert_file, self.tls_key_file)

    @model_validator(mode="after")
    def _stays_private(self) -> Self:
        check_address(self.http_host, self.tls, self.plain_http)
        return self

    @model_validator(mode="after")
    def _has_files(self) -> Self:
        _ = self.webhooks, self.subject_secret
        return self


def _threshold(written: str) -> tuple[str, float]:
    concept, found, share = written.partition("=")
    try:
        value = float(share) if found else 0.0
    except ValueError:
        value = 0.0
    if not concept.strip() or not 0.0 < value < 1.0:
        raise ValueError(
            f"{written.strip()!r} is no threshold; write CONCEPT=SHARE with a share between 0 and 1, and a "
            "comma between two, e.g. weapons=0.01,self-harm=0.005"
        )
    return concept.strip(), value


def store_settings() -> StoreSettings:
    """Read the environment; raises SettingsError."""
    try:
        return StoreSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def key_settings() -> KeySettings:
    """Read the environment; raises SettingsError."""
    try:
        return KeySettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def vector_settings() -> VectorSettings:
    """Read the environment; raises SettingsError."""
    try:
        return VectorSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def checkpoint_settings() -> CheckpointSettings:
    """Read the environment; raises SettingsError."""
    try:
        return CheckpointSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def log_settings() -> LogSettings:
    """Read the environment; raises SettingsError."""
    try:
        return LogSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def keeper_settings() -> KeeperSettings:
    """Read the environment; raises SettingsError."""
    try:
        return KeeperSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def erase_settings() -> EraseSettings:
    """Read the environment; raises SettingsError."""
    try:
        return EraseSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def service_settings() -> ServiceSettings:
    """Read the environment; raises SettingsError."""
    try:
        return ServiceSettings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    # Never the input: it may hold the database password.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        # What concerns several settings names them itself.
        f"SUBTEXT_{str(problem['loc'][0]).upper()}: {problem['msg']}" if problem["loc"] else problem["msg"]
        for problem in problems
    ).replace("Value error, ", "")
