"""A webhook's receiver: a real HTTP server that keeps what it was sent and answers as it is told."""

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> Any:
        """Return its JSON; raises WebhookVerificationError unless this secret signed it just now."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(slots=True)
class Receiver:
    """What was received, and how to answer."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 200 when it is empty."""
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    """Between two bytes of an answer whose headers never end; 0 for an ordinary one."""


@contextlib.contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver on a free loopback port."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.received.append(
                Received({name.lower(): value for name, value in self.headers.items()}, body)
            )
            time.sleep(state.delay_seconds)
            with contextlib.suppress(OSError):
                self._answer()

        def _answer(self) -> None:
            status = state.statuses.pop(0) if state.statuses else 200
            self.send_response(status)
            if status in {301, 307}:
                self.send_header("Location", f"http://127.0.0.1:{state.port}/elsewhere")
            self.flush_headers()
            while state.drip_seconds:
                self.wfile.write(b"X-Drip: 1\r\n")
                time.sleep(state.drip_seconds)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as it is called upstream
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
