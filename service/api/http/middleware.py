"""Around every request: its duration as a metric, and no caching of audit data."""

import time
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.live.stream import MEDIA_TYPE as EVENTS
from service.metrics import Metrics


class Observe:
    """Pure ASGI, outermost, so that it also sees what the error handlers answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        code = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        stream_began: float | None = None

        async def watch(message: Message) -> None:
            nonlocal code, stream_began
            if message["type"] == "http.response.start":
                code = message["status"]
                if MutableHeaders(scope=message).get("Content-Type", "").startswith(EVENTS):
                    stream_began = time.perf_counter()
                if scope["path"].removeprefix(scope.get("root_path", "")).startswith(("/v1/", "/auth/")):
                    MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            # How long somebody listens says nothing of how fast we are.
            ended = stream_began or time.perf_counter()
            # Routing leaves the matched route in the scope.
            self._metrics.observe_request(
                route=getattr(scope.get("route"), "path_format", None),
                method=scope["method"],
                code=code,
                seconds=ended - started,
            )
