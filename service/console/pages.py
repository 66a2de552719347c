"""`/console`: the built page and its files, under a policy that lets nothing run but its own scripts."""

import re
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DIST: Final = Path(__file__).parent / "dist"
_BASE: Final = '<base href="/console/" />'
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; base-uri 'self'; form-action 'self';"
    " frame-ancestors 'none'; object-src 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# A prefix that a proxy sets is written into the page.
_ROOT_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def install(app: FastAPI, *, has_issuer: bool, grafana_url: str = "", dist: Path = DIST) -> None:
    """Serve the console below ``/console``; where it was not built, say so with 503 and the fix.

    ``has_issuer``: whether people sign in by an issuer, which the sign-in page then offers.
    ``grafana_url``: where the page leads for time series.
    """
    register_url_convertor("any_text", _AnyText())
    told = {"subtext-issuer": "yes" if has_issuer else "", "subtext-grafana": grafana_url}
    index = dist / "index.html"
    if index.is_file():
        html = index.read_text(encoding="utf-8")
        files = GZipMiddleware(StaticFiles(directory=dist / "assets"), minimum_size=1024)
        app.mount("/console/assets", _Unchanging(files), name="console_assets")
    else:
        html = None

    @app.get("/console/favicon.svg", include_in_schema=False)
    def favicon() -> Response:
        return FileResponse(dist / "favicon.svg", headers=HEADERS) if html else _not_built()

    @app.get("/console", include_in_schema=False)
    @app.get("/console/{path:any_text}", include_in_schema=False)
    def console(request: Request) -> Response:
        if html is None:
            return _not_built()
        root = request.scope.get("root_path", "").rstrip("/")
        page = _page(html, root if _ROOT_PATH.fullmatch(root) else "", told)
        return HTMLResponse(page, headers={**HEADERS, "Cache-Control": "no-cache"})


class _AnyText(PathConvertor):
    """The rest of a path, line breaks too: request ids may have them."""

    regex = "(?s:.*)"


def _page(html: str, root: str, told: Mapping[str, str]) -> str:
    metas = "".join(
        f'\n    <meta name="{name}" content="{escape(value)}" />' for name, value in told.items() if value
    )
    return html.replace(_BASE, f'<base href="{root}/console/" />{metas}')


def _not_built() -> Response:
    return PlainTextResponse(
        "The console is not built here: run `make console`. The REST API answers without it.\n",
        HTTPStatus.SERVICE_UNAVAILABLE,
        HEADERS,
    )


class _Unchanging:
    """Files whose names change with their content: a browser keeps them for good."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            # What is not there is an exception, which passes by.
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
            await send(message)

        await self._app(scope, receive, with_headers)
