"""For orchestrators and Prometheus, without a key: alive, ready, metrics."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Literal

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from service import metrics
from service.api.deps import Held
from service.api.schemas.answer import Answer
from service.store import engine, migrate

router = APIRouter(tags=["health"])
_log: Final = structlog.get_logger(__name__)
_HEAD: Final = migrate.head_revision()


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(Answer):
    """One thing that must work before requests can be answered."""

    ok: bool
    detail: str = Field(examples=[f"at {_HEAD}, head is {_HEAD}"])


class Readiness(Answer):
    """Whether requests can be answered, and every check by name."""

    ready: bool
    checks: dict[str, Check]


@router.get("/healthz", summary="Tell whether the process lives")
def get_health() -> Health:
    """Return ok; looks at nothing else, so that a database outage restarts no process."""
    return Health()


@router.get(
    "/readyz",
    summary="Tell whether requests can be answered",
    responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Readiness, "description": "Some check fails."}},
)
def get_readiness(held: Held) -> JSONResponse:
    """Check PostgreSQL and the schema's version; 503 when one fails."""
    checks = {
        "postgres": _check("postgres", _postgres, held.engine),
        "migrations": _check("migrations", _migrations, held.engine),
    }
    answer = Readiness(ready=all(check.ok for check in checks.values()), checks=checks)
    return JSONResponse(
        answer.model_dump(), HTTPStatus.OK if answer.ready else HTTPStatus.SERVICE_UNAVAILABLE
    )


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def get_metrics(held: Held) -> Response:
    """Return the exposition text."""
    return Response(held.metrics.render(), media_type=metrics.CONTENT_TYPE)


def _postgres(database: Engine) -> Check:
    engine.ping(database)
    return Check(ok=True, detail="answers")


def _migrations(database: Engine) -> Check:
    current, head = migrate.current_revision(database), migrate.head_revision()
    detail = f"at {current or 'nothing'}, head is {head}"
    return Check(
        ok=current == head, detail=detail if current == head else f"{detail}; run: subtext migrate"
    )


def _check(name: str, run: Callable[[Engine], Check], database: Engine) -> Check:
    try:
        return run(database)
    except (SQLAlchemyError, engine.UnusableDatabaseError) as error:
        # The driver's message may hold addresses: it goes to the log, not to an open endpoint.
        _log.warning("readiness_check_failed", check=name, error=str(error))
        return Check(ok=False, detail=f"fails with {type(error).__name__}; see the service's log")
