"""One POST to a receiver that may be hostile: at a checked address, without redirects, in bounded time."""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

from service.webhooks.destinations import Destination, is_loopback

STEP_SECONDS: Final = 5.0
"""For connecting, and for each wait for the receiver."""
WHOLE_SECONDS: Final = 15.0
"""From the first byte sent to the last header read, however slowly a receiver drips."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_MAX_ADDRESSES: Final = 3
"""Of a host that are tried one after the other, for the first may be of a network that is not reached."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class DeliveryError(Exception):
    """The receiver did not take the message; the text is ours and holds nothing that it sent."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def post(destination: Destination, content: bytes, headers: Mapping[str, str]) -> None:
    """Send the content; raises DeliveryError unless the receiver answers with a 2xx status."""
    parts = destination.parts
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = _connect(destination, host, _resolve(destination, host, port), port)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.sock.settimeout(WHOLE_SECONDS)  # the receiver may think that long before it answers
    expired = threading.Event()
    watchdog = threading.Timer(WHOLE_SECONDS, _abort, (connection, expired))
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.request(
            "POST", path, content, {"User-Agent": f"subtext/{version('subtext')}", **headers}
        )
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        is_late = expired.is_set() or isinstance(error, TimeoutError)
        raise DeliveryError("timeout" if is_late else type(error).__name__) from error
    finally:
        watchdog.cancel()
        connection.close()
    if expired.is_set():  # cut off within its headers, which looks like their end
        raise DeliveryError("timeout")
    _judge(status)


def _judge(status: int) -> None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    if status == HTTPStatus.GONE:
        raise DeliveryError("HTTP 410: the receiver wants no more of this message", is_final=True)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise DeliveryError(
            f"HTTP {status}: redirects are not followed; write the new address into the file"
        )
    raise DeliveryError(f"HTTP {status}")


def _resolve(destination: Destination, host: str, port: int) -> list[str]:
    """Return addresses that may be talked to; a name that is resolved again could lead elsewhere."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError("the host's name does not resolve") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not may_reach(destination, host, address):
            raise DeliveryError(
                f"{host} leads to {address}, which is private; allow_private would allow it"
            )
    return addresses[:_MAX_ADDRESSES]


def may_reach(destination: Destination, host: str, address: str) -> bool:
    """Tell whether this address of the host may be talked to: a public one, or what the file allows."""
    reached = _embedded(ipaddress.ip_address(address.partition("%")[0]))
    if reached.is_loopback:
        return is_loopback(host) or destination.allow_private
    if reached.is_link_local or reached.is_multicast or reached.is_unspecified:
        return False  # where clouds tell machines their credentials
    return reached.is_global or destination.allow_private


def _embedded(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, address))[1]


def _connect(
    destination: Destination, host: str, addresses: Sequence[str], port: int
) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(host, port, timeout=STEP_SECONDS)
    raw = reach(addresses, port)
    connection.sock = raw
    if destination.parts.scheme == "http":
        return connection
    try:
        connection.sock = _trust(destination).wrap_socket(raw, server_hostname=host)
    except OSError as error:
        raw.close()
        raise DeliveryError(f"TLS: {type(error).__name__}") from error
    return connection


def reach(addresses: Sequence[str], port: int) -> socket.socket:
    """Return a connection to the first address that answers; the error is the last one's."""
    *others, last = addresses
    for address in others:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout=STEP_SECONDS)
    try:
        return socket.create_connection((last, port), timeout=STEP_SECONDS)
    except OSError as error:
        late = isinstance(error, TimeoutError)
        raise DeliveryError("timeout" if late else type(error).__name__) from error


def _trust(destination: Destination) -> ssl.SSLContext:
    return ssl.create_default_context(
        cafile=None if destination.ca_file is None else str(destination.ca_file)
    )


def _abort(connection: http.client.HTTPConnection, expired: threading.Event) -> None:
    expired.set()
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
