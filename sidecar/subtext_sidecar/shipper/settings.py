"""Settings of the sidecar process: flags, each with an environment variable as fallback."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from subtext_sidecar.contract.listening import (
    PLAIN_HTTP,
    TlsFiles,
    check_address,
    tls_files,
)
from subtext_sidecar.contract.secret import read_secret

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """Everything the sidecar process depends on."""

    socket: str  # ZeroMQ address that the plugin connects to
    redis_url: str
    redis_password_file: Path | None  # instead of one in the URL
    http_host: str
    http_port: int  # 0: any free port
    tls_cert_file: Path | None  # PEM, to serve the same with; None: plain HTTP
    tls_key_file: Path | None
    plain_http: str | None  # why plain HTTP may leave this machine
    buffer_bytes: int  # records waiting for Redis; what comes past it is dropped
    max_stream_bytes: int  # bound of the stream in Redis; what is trimmed is counted
    screen_file: Path | None  # the screen's reference; None: rows are not screened
    policy_file: Path | None  # JSON, may change at run time; None: the policies of the start
    log_level: str

    @property
    def redis_password(self) -> str | None:
        """What the file of it says, None for what the URL says; ValueError when it cannot be read."""
        if self.redis_password_file is None:
            return None
        return read_secret("SUBTEXT_REDIS_PASSWORD_FILE", self.redis_password_file)

    @property
    def tls(self) -> TlsFiles | None:
        """What to serve HTTPS with; raises ListeningError when a file is missing."""
        return tls_files(self.tls_cert_file, self.tls_key_file)


def parse_settings(argv: Sequence[str], environ: Mapping[str, str]) -> SidecarSettings:
    """Return the settings; a missing or bad value ends the process with status 2, naming it."""
    parser = argparse.ArgumentParser(
        prog="subtext sidecar",
        description="Receive sampled activations from vLLM and ship them to the stream.",
    )
    for flag, default, text in (
        ("--socket", None, "where the plugin connects, e.g. ipc:///run/subtext/capture.sock"),
        ("--redis-url", None, "Redis or Valkey, e.g. redis://127.0.0.1:6379/0"),
        ("--redis-password-file", None, "file with its password, instead of one in the URL"),
        ("--http-host", "127.0.0.1", "address of /metrics, /healthz and /readyz"),
        ("--http-port", "9464", "port of the same; 0 takes any free one"),
        ("--tls-cert-file", None, "PEM certificate to serve the same with"),
        ("--tls-key-file", None, "its key"),
        (
            "--plain-http",
            None,
            f"why the same may leave this machine without TLS: one of {', '.join(PLAIN_HTTP)}",
        ),
        ("--buffer-bytes", str(64 * _MIB), "memory for records that wait for Redis"),
        ("--max-stream-bytes", str(256 * _MIB), "bound of the activation stream in Redis"),
        (
            "--screen-file",
            None,
            "reference from `subtext screen fit`; without one nothing is screened",
        ),
        ("--policy-file", None, "JSON with the sections capture and screen, followed while running"),
        ("--log-level", "INFO", f"one of {', '.join(_LEVELS)}"),
    ):
        parser.add_argument(
            flag, default=environ.get(_variable(flag)) or default, help=f"{text} [{_variable(flag)}]"
        )
    values = parser.parse_args(list(argv))
    settings = SidecarSettings(
        socket=_address(parser, values.socket),
        redis_url=_required(parser, "--redis-url", values.redis_url),
        redis_password_file=_path(values.redis_password_file),
        http_host=values.http_host,
        http_port=_integer(parser, "--http-port", values.http_port, 0, 65_535),
        tls_cert_file=_path(values.tls_cert_file),
        tls_key_file=_path(values.tls_key_file),
        plain_http=values.plain_http,
        buffer_bytes=_integer(parser, "--buffer-bytes", values.buffer_bytes, _MIB, 1 << 40),
        max_stream_bytes=_integer(parser, "--max-stream-bytes", values.max_stream_bytes, _MIB, 1 << 40),
        screen_file=_path(values.screen_file),
        policy_file=_path(values.policy_file),
        log_level=_level(parser, values.log_level),
    )
    _check_private(parser, settings)
    return settings


def _variable(flag: str) -> str:
    return "SUBTEXT_" + flag.removeprefix("--").replace("-", "_").upper()


def _required(parser: argparse.ArgumentParser, flag: str, value: str | None) -> str:
    if not value:
        parser.error(f"{flag} is missing: give it, or set {_variable(flag)}")
    return value


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _address(parser: argparse.ArgumentParser, value: str | None) -> str:
    address = _required(parser, "--socket", value)
    if not address.startswith("ipc://") or address == "ipc://":
        parser.error(f"--socket is {address!r}: it must be ipc:// and a path on this machine")
    return address


def _check_private(parser: argparse.ArgumentParser, settings: SidecarSettings) -> None:
    why = settings.plain_http
    if why is not None and why not in PLAIN_HTTP:
        parser.error(
            f"--plain-http (SUBTEXT_PLAIN_HTTP) is {why!r}: it must be one of {', '.join(PLAIN_HTTP)}"
        )
    try:
        check_address(settings.http_host, settings.tls, why)
        _ = settings.redis_password
    except ValueError as error:
        parser.error(str(error))


def _integer(parser: argparse.ArgumentParser, flag: str, value: str, least: int, most: int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        parser.error(
            f"{flag} ({_variable(flag)}) is {value!r}: it must be a whole number from {least} to {most}"
        )
    return number


def _level(parser: argparse.ArgumentParser, value: str) -> str:
    if value.upper() not in _LEVELS:
        parser.error(
            f"--log-level (SUBTEXT_LOG_LEVEL) is {value!r}: it must be one of {', '.join(_LEVELS)}"
        )
    return value.upper()
