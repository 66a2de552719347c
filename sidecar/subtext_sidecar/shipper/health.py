"""The sidecar's own HTTP: /metrics, /healthz (the loop turns) and /readyz (Redis answers)."""

import contextlib
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from subtext_sidecar.contract.listening import TlsFiles

_STUCK_AFTER_SECONDS: Final = 30.0


class Health:
    """What the loop tells about itself; written by the loop, read by HTTP threads."""

    def __init__(self) -> None:
        self._turned_at = time.monotonic()
        self.is_redis_up = False

    def turn(self) -> None:
        """Say that the loop has made a turn."""
        self._turned_at = time.monotonic()

    def is_alive(self) -> bool:
        """Tell whether the loop has turned lately."""
        return time.monotonic() - self._turned_at < _STUCK_AFTER_SECONDS


class HealthServer:
    """Serves in a thread of its own between ``with`` and its end."""

    def __init__(
        self, host: str, port: int, health: Health, registry: CollectorRegistry, tls: TlsFiles | None = None
    ) -> None:
        """Bind at once; raises OSError when the port is taken, and ListeningError for bad TLS files."""

        class Handler(_Handler):
            pass

        Handler.health = health
        Handler.registry = registry
        context = None if tls is None else tls.context()
        self._server = _Server((host, port), Handler)
        if context is not None:
            # The handshake waits for the client, so it belongs to the connection's own thread.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="subtext-http", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hung up, was silent, or spoke no TLS."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10.0  # seconds of silence, after which a connection and its thread are given up
    health: Health
    registry: CollectorRegistry

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4)
        elif path == "/healthz":
            self._answer_check(is_ok=self.health.is_alive())
        elif path == "/readyz":
            self._answer_check(is_ok=self.health.is_alive() and self.health.is_redis_up)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"not found\n", "text/plain")

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds."""

    def _answer_check(self, *, is_ok: bool) -> None:
        if is_ok:
            self._answer(HTTPStatus.OK, b"ok\n", "text/plain")
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"unavailable\n", "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # whoever asked has hung up
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
