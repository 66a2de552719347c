"""`/docs`: Swagger UI from an installed package, so that it works where no CDN can be reached."""

import importlib.util
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_STATIC: Final = "/docs/static"


def install(app: FastAPI) -> None:
    """Serve the page and its files; the application must be made with ``docs_url=None``."""
    app.mount(_STATIC, StaticFiles(directory=_package_files()), name="docs_static")

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="Subtext REST API",
            swagger_js_url=f"{root}{_STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_STATIC}/favicon-32x32.png",
        )


def _package_files() -> Path:
    spec = importlib.util.find_spec("swagger_ui")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("package swagger-ui-py is missing: make setup")
    return Path(spec.origin).parent / "static"
