"""Where sidecar, worker and service may answer HTTP: on this machine, with TLS, or in plain where told why.

What they answer is the audit, and who asks for it with a key. This module is one rule for all three; it
imports nothing of ours.
"""

import ipaddress
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

PlainHttp = Literal["behind-proxy", "private-network"]
"""Why plain HTTP may leave this machine: a proxy terminates TLS, or only trusted hosts reach the port."""
PLAIN_HTTP: Final[tuple[str, ...]] = get_args(PlainHttp)


class ListeningError(ValueError):
    """The process must not listen there; the message names the settings and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files."""

    certificate: Path  # with its chain
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return what a server wraps its socket with; raises ListeningError for files that do not work.

        It follows the files: a connection that begins after they have changed gets the new certificate.
        While what they hold does not work, the certificate of before is served on.
        """
        followed = _FollowedFiles(self)
        # The server's own context, whose callback gives each connection the one of the files as they are.
        made = self._load()
        made.sni_callback = followed.choose
        return made

    def _load(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            made.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one
            raise ListeningError(
                f"SUBTEXT_TLS_CERT_FILE is {self.certificate} and SUBTEXT_TLS_KEY_FILE is {self.key}: they"
                f" must be a PEM certificate and its key without a passphrase ({error.strerror or error})"
            ) from error
        return made


class _FollowedFiles:
    """The context of the files as they were last read."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = self._stamp()
        self._context: ssl.SSLContext | None = None  # the server's own is right

    def choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext
    ) -> None:
        """Give a new connection its certificate; OpenSSL calls this for each, with a name or without."""
        self._follow()
        if self._context is not None:
            connection.context = self._context

    def _follow(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._context = self._files._load()  # noqa: SLF001  # the two are one
        except ListeningError as error:
            logging.getLogger("subtext").warning("tls_files_not_followed: %s", error)

    def _stamp(self) -> tuple[object, ...]:
        return tuple(_stamp_of(path) for path in (self._files.certificate, self._files.key))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def tls_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """Return the files, None without; raises ListeningError when only one is given."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ListeningError(
            "SUBTEXT_TLS_CERT_FILE and SUBTEXT_TLS_KEY_FILE go together: set both or neither"
        )
    return TlsFiles(certificate=certificate, key=key)


def check_address(host: str, tls: TlsFiles | None, plain_http: str | None) -> None:
    """Raise ListeningError unless what is said at this address stays private."""
    if tls is not None or plain_http in PLAIN_HTTP or is_loopback(host):
        return
    raise ListeningError(
        f"SUBTEXT_HTTP_HOST is {host!r}, which other machines can reach, and there is no TLS: set"
        " SUBTEXT_TLS_CERT_FILE and SUBTEXT_TLS_KEY_FILE, or SUBTEXT_PLAIN_HTTP=behind-proxy where a proxy"
        " terminates TLS, or SUBTEXT_PLAIN_HTTP=private-network where only trusted hosts reach this"
        " address, or SUBTEXT_HTTP_HOST=127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches the address; of names only ``localhost`` is known."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
