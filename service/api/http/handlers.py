"""Every way to fail, turned into a problem document. The last boundary of a request."""

from http import HTTPStatus
from typing import Any, Final, get_args

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from service.api.parameters import PRINTABLE
from service.errors import MEDIA_TYPE, FieldError, Location, Problem, ProblemError, invalid_input, problem
from service.store.engine import UnusableDatabaseError, is_read_only

_log: Final = structlog.get_logger(__name__)
_RETRY_AFTER_SECONDS: Final = "5"
_NOT_MIGRATED: Final = {"42P01", "42703", "42501"}  # undefined table, undefined column, not granted
# Pydantic's error types whose own words would not help a caller.
_CLEARER: Final = {
    "extra_forbidden": ("unknown_parameter", "this operation takes no such parameter"),
}
_PATTERN: Final = "string_pattern_mismatch"


def install(app: FastAPI) -> None:
    """Add the handlers to the application."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(OperationalError, _on_database)
    app.add_exception_handler(PoolTimeoutError, _on_database)
    app.add_exception_handler(UnusableDatabaseError, _on_database)
    app.add_exception_handler(ProgrammingError, _on_schema)
    app.add_exception_handler(DBAPIError, _on_refusal)
    app.add_exception_handler(Exception, _on_bug)


def render(document: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return the document as a response."""
    return Response(document.model_dump_json(), document.status, headers, media_type=MEDIA_TYPE)


def _on_problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    return render(error.problem, error.headers)


def _on_invalid(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    # An optional parameter fails twice, as a value and as null; null has no form in a URL.
    wrong = [found for found in error.errors() if found["type"] != "none_required"]
    return render(invalid_input([_field_error(found) for found in wrong]).problem)


def _field_error(wrong: dict[str, Any]) -> FieldError:
    # Without the input itself: an answer should not echo what may be a misplaced secret. Of the
    # location only the name: the rest are names of Pydantic's own parts.
    where, code, message = wrong["loc"], wrong["type"], wrong["msg"].removeprefix("Value error, ")
    location: Location = next((known for known in get_args(Location) if known == where[0]), "query")
    code, message = _of_pattern(wrong) if code == _PATTERN else _CLEARER.get(code, (code, message))
    return FieldError(
        location=location, field=str(where[min(1, len(where) - 1)]), code=code, message=message
    )


def _of_pattern(wrong: dict[str, Any]) -> tuple[str, str]:
    """Return code and words for a text of another form than the one that is asked for."""
    pattern = wrong["ctx"]["pattern"]
    if pattern == PRINTABLE:
        return "control_character", "must not hold control characters"
    return "wrong_form", f"must match {pattern}"


def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; see /docs",
        HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; see /docs",
    }.get(status, str(error.detail))
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return render(problem(status, status.name.lower(), detail), headers)


def _methods(request: Request) -> set[str]:
    """Return what the path takes: the router itself names the methods of the first of its routes alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in matching for method in route.methods or ()}


def _on_database(_request: Request, error: Exception) -> Response:
    _log.warning("database_unavailable", error_type=type(error).__name__, error=str(error))
    document = problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "database_unavailable",
        "the database is away, busy, or took too long; try again, or narrow the filters",
    )
    return render(document, {"Retry-After": _RETRY_AFTER_SECONDS})


def _on_refusal(request: Request, error: Exception) -> Response:
    """Answer for a database that only reads just now; its connections are given up already."""
    return _on_database(request, error) if is_read_only(error) else _on_bug(request, error)


def _on_schema(request: Request, error: Exception) -> Response:
    """Answer for tables or columns that are not there yet, and for nothing else that a query may break."""
    cause = getattr(error, "orig", None)
    if getattr(cause, "sqlstate", None) not in _NOT_MIGRATED:
        return _on_bug(request, error)
    _log.warning("database_not_migrated", error=str(cause))
    document = problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "database_not_migrated",
        "the database lacks what this service needs; an operator has to run: subtext migrate",
    )
    return render(document, {"Retry-After": _RETRY_AFTER_SECONDS})


def _on_bug(request: Request, error: Exception) -> Response:
    # The template and not the path, which may hold a request id.
    route = getattr(request.scope.get("route"), "path_format", None)
    _log.error("request_failed", method=request.method, route=route, exc_info=error)
    detail = "an error on our side; it is in the service's log"
    return render(problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail))
