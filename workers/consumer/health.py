"""The worker's own HTTP: /metrics, /healthz (its loop gets on) and /readyz (its parts answer).

Whoever reaches the port may ask, so /readyz names what fails; what is wrong with it is in the log.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from service.store.remembered import Remembered
from subtext_sidecar.contract.listening import TlsFiles

log = structlog.get_logger()

Check = Callable[[], None]
"""Raises when its part is not ready."""


class HealthServer:
    """Serves from a daemon thread until closed."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        checks: Mapping[str, Check],
        *,
        lives: Callable[[], bool] = lambda: True,
        tls: TlsFiles | None = None,
        remembered_seconds: float = 1.0,
    ) -> None:
        """Bind at once; raises OSError when the port is taken, and ListeningError for bad TLS files.

        The checks run once in ``remembered_seconds`` at most: anybody may ask, and must not make us ask the
        stores as often.
        """
        context = None if tls is None else tls.context()
        app = HealthApp(registry, checks, lives, remembered_seconds)
        self._server = make_server(host, port, app, server_class=_Server, handler_class=_QuietHandler)
        if context is not None:
            # The handshake waits for the client, so it belongs to the connection's own thread.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a slow scraper must not keep the process alive

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hung up, was silent, or spoke no TLS."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _QuietHandler(WSGIRequestHandler):
    timeout = 10.0  # seconds of silence, after which a connection and its thread are given up

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """Log nothing: probes and scrapes come every few seconds."""


class HealthApp:
    """The answers, as a WSGI application."""

    def __init__(
        self,
        registry: CollectorRegistry,
        checks: Mapping[str, Check],
        lives: Callable[[], bool],
        remembered_seconds: float,
    ) -> None:
        self._metrics: Any = make_wsgi_app(registry)
        self._checks = checks
        self._lives = lives
        self._results = Remembered(self._look, remembered_seconds)
        self._failures: dict[str, str] = {}  # as last logged: probes come every few seconds

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request; HEAD as GET, without the body."""
        if environ.get("REQUEST_METHOD") == "HEAD":
            self._answer({**environ, "REQUEST_METHOD": "GET"}, start_response)
            return []
        return self._answer(environ, start_response)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/healthz":
            if self._lives():
                return _json(start_response, "200 OK", {"status": "ok"})
            return _json(start_response, "503 Service Unavailable", {"status": "hangs"})
        if path == "/readyz":
            results = self._results.get()
            is_ready = all(result == "ok" for result in results.values())
            status = "200 OK" if is_ready else "503 Service Unavailable"
            return _json(
                start_response, status, {"status": "ok" if is_ready else "not ready", "checks": results}
            )
        return _json(start_response, "404 Not Found", {"status": "not found"})

    def _look(self) -> dict[str, str]:
        return {name: self._result(name, check) for name, check in self._checks.items()}

    def _result(self, name: str, check: Check) -> str:
        try:
            check()
        except Exception as error:  # noqa: BLE001  # the boundary of a request: any failure is an answer
            failure = f"{type(error).__name__}: {error}"  # may hold addresses and accounts
            if self._failures.get(name) != failure:
                self._failures[name] = failure
                log.warning("readiness_check_failed", check=name, error=failure)
            return "failed"
        self._failures.pop(name, None)
        return "ok"


def _json(start_response: Callable[..., Any], status: str, body: object) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]
