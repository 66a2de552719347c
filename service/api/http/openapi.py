"""The OpenAPI 3.1 document, which is committed as docs/openapi.json."""

import json
from typing import Any

from fastapi import FastAPI

from service.errors import MEDIA_TYPE

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def install(app: FastAPI) -> None:
    """Make the application describe its errors with the media type that they really have."""
    generate = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problem_media_type(generate())
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def document() -> str:
    """Return the document as text; needs no database."""
    return json.dumps(unconnected_app().openapi(), indent=2, ensure_ascii=False) + "\n"


def unconnected_app() -> FastAPI:
    """Return the application over a database that does not exist, for its description alone."""
    from prometheus_client import CollectorRegistry

    from service.api.app import create_app
    from service.api.deps import Resources
    from service.metrics import Metrics
    from service.store.engine import create_engine, session_factory

    engine = create_engine("postgresql://nowhere.invalid/none")  # connects only when asked
    sessions = session_factory(engine)
    return create_app(Resources(engine=engine, sessions=sessions, metrics=Metrics(CollectorRegistry())))


def _with_problem_media_type(schema: dict[str, Any]) -> dict[str, Any]:
    for path in schema["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if content.get("application/json", {}).get("schema") == _PROBLEM:
                    response["content"] = {MEDIA_TYPE: content["application/json"]}
    return schema
