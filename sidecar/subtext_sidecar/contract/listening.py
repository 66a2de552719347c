"""Where sidecar, worker and service may answer HTTP: on this machine, with TLS, or in plain where told why.

What they answer is the audit, and who asks for it with a key. This module is one rule for all three; it
imports nothing of ours.
"""

import ipaddress
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
        """Return what a server wraps its socket with; raises ListeningError for files that do not work."""
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
