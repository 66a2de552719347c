"""For orchestrators and Prometheus, without a key: alive, ready, metrics. Each answers HEAD as well."""

from http import HTTPStatus
from typing import Final, Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from service import metrics
from service.api.deps import Held
from service.api.schemas.answer import Answer
from service.store import migrate

router = APIRouter(tags=["health"])
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


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Tell whether the process lives")
def get_health() -> Health:
    """Return ok; looks at nothing else, so that a database outage restarts no process."""
    return Health()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Tell whether requests can be answered",
    responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Readiness, "description": "Some check fails."}},
)
def get_readiness(held: Held) -> JSONResponse:
    """Tell of PostgreSQL and the schema's version, looked at once a second at most; 503 when one fails."""
    checks = {name: Check(**found._asdict()) for name, found in held.readiness.get().items()}
    answer = Readiness(ready=all(check.ok for check in checks.values()), checks=checks)
    return JSONResponse(
        answer.model_dump(), HTTPStatus.OK if answer.ready else HTTPStatus.SERVICE_UNAVAILABLE
    )


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def get_metrics(held: Held) -> Response:
    """Return the exposition text."""
    return Response(held.metrics.render(), media_type=metrics.CONTENT_TYPE)
