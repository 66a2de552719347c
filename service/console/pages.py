"""`/console`: the built page and its files, under a policy that lets nothing run but its own scripts."""

import gzip
import json
import mimetypes
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

from fastapi import FastAPI, HTTPException
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

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


_KEPT: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
_FIRST_OF_ALL: Final = "index.html"
_DRAWS: Final = "src/app/start.tsx"
_PAGES: Final = {"": "overview", "requests": "request"}
"""Folders of pages by the first part of their path, where they are not called the same."""


def _nobody(_request: Request) -> Sequence[str]:
    return ()


def install(
    app: FastAPI,
    *,
    has_issuer: bool,
    grafana_url: str = "",
    scopes_of: Callable[[Request], Sequence[str]] = _nobody,
    dist: Path = DIST,
) -> None:
    """Serve the console below ``/console``; where it was not built, say so with 503 and the fix.

    ``has_issuer``: whether people sign in by an issuer, which the sign-in page then offers.
    ``grafana_url``: where the page leads for time series.
    ``scopes_of``: what the session of a request may, empty without one: the page asks by it for its first
    answers before it knows who is signed in.
    """
    register_url_convertor("any_text", _AnyText())
    told = {"subtext-issuer": "yes" if has_issuer else "", "subtext-grafana": grafana_url}
    index = dist / "index.html"
    html = index.read_text(encoding="utf-8") if index.is_file() else None
    links = _Links.read(dist / "manifest.json")
    file_of = _files(dist / "assets")

    @app.get("/console/assets/{name}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        # Not in a thread: files are read and compressed once in the life of the process.
        return file_of(name, "gzip" in request.headers.get("Accept-Encoding", ""))

    @app.get("/console/favicon.svg", include_in_schema=False)
    def favicon() -> Response:
        return FileResponse(dist / "favicon.svg", headers=HEADERS) if html else _not_built()

    @app.get("/console", include_in_schema=False)
    @app.get("/console/{path:any_text}", include_in_schema=False)
    def console(request: Request) -> Response:
        if html is None:
            return _not_built()
        root = request.scope.get("root_path", "").rstrip("/")
        may = {"subtext-scopes": " ".join(scopes_of(request))}
        page = _page(html, root if _ROOT_PATH.fullmatch(root) else "", told | may)
        page = page.replace("</head>", f"{links.of(request.path_params.get('path', ''))}</head>")
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


class _Links:
    """What a page's scripts and styles are called, so that a browser asks for all of them at once."""

    def __init__(self, manifest: Mapping[str, Mapping[str, Any]]) -> None:
        self._manifest = manifest
        self._of_page = cache(self._write)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what Vite writes beside a build; without it there are no links, and pages come without."""
        return cls(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})

    def of(self, path: str) -> str:
        """Return the elements for the page at a path below the console."""
        first = path.split("/", 1)[0]
        page = f"src/pages/{_PAGES.get(first, first)}/index.tsx"
        return self._of_page(page if page in self._manifest else "")

    def _write(self, page: str) -> str:
        first = set(self._needed([_FIRST_OF_ALL], set()))
        found = dict.fromkeys(self._needed([_DRAWS, page], set()))
        return "".join(
            f'  <link rel="stylesheet" crossorigin href="./{escape(file)}" />\n  '
            if file.endswith(".css")
            else f'  <link rel="modulepreload" crossorigin href="./{escape(file)}" />\n  '
            for file in found
            if file not in first
        )

    def _needed(self, names: Iterable[str], known: set[str]) -> Iterator[str]:
        for name in names:
            if name in known or name not in self._manifest:
                continue
            known.add(name)
            made = self._manifest[name]
            yield made["file"]
            yield from made.get("css", ())
            yield from self._needed(made.get("imports", ()), known)


def _files(folder: Path) -> Callable[[str, bool], Response]:
    """Return what answers with a file of the folder: they are kept for good, as names change."""
    there = {path.name: path for path in folder.glob("*") if path.is_file()}

    @cache
    def content(name: str, is_compressed: bool) -> tuple[bytes, Mapping[str, str]]:  # noqa: FBT001
        plain = there[name].read_bytes()
        if not is_compressed:
            return plain, {**HEADERS, **_KEPT}
        return gzip.compress(plain, mtime=0), {**HEADERS, **_KEPT, "Content-Encoding": "gzip"}

    def answer(name: str, is_compressed: bool) -> Response:  # noqa: FBT001
        if name not in there:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        body, headers = content(name, is_compressed)
        return Response(body, headers=headers, media_type=kind)

    return answer
