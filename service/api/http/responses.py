"""The problem answers that every operation documents."""

from http import HTTPStatus
from typing import Any, Final

from service.errors import Problem

_MEANING: Final = {
    HTTPStatus.BAD_REQUEST: "The body is no text that could be read.",
    HTTPStatus.UNAUTHORIZED: "No key, or one that is unknown, expired or revoked.",
    HTTPStatus.FORBIDDEN: "The key lacks a scope; `detail` names it.",
    HTTPStatus.NOT_FOUND: "Not stored. Never evidence that there was nothing to find.",
    HTTPStatus.CONFLICT: "What is asked for does not fit the state; `code` says which.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "A parameter is wrong, unknown, repeated, or the cursor does not fit.",
    HTTPStatus.TOO_MANY_REQUESTS: "As many of these are under way as may be; `detail` says of whom.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database is away, busy, took too long, or is not migrated; or the "
    "access log cannot be written, and text would have been shown.",
}

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: HTTPStatus) -> Responses:
    """Return FastAPI's ``responses`` for these statuses."""
    return {int(status): {"model": Problem, "description": _MEANING[status]} for status in statuses}


ALWAYS: Final = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
