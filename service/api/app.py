"""The application: routes, errors and metrics around resources that somebody else opened."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from service.api.deps import Resources, refuse_repeated_parameters, scopes_of_session
from service.api.http import docs_page, handlers, openapi
from service.api.http.middleware import Observe
from service.api.http.responses import ALWAYS, problems
from service.api.routes import (
    access,
    comparison,
    concepts,
    configuration,
    coverage,
    detectors,
    discoveries,
    erasures,
    evidence,
    explanations,
    exports,
    flags,
    health,
    history,
    holds,
    incidents,
    keys,
    live,
    login,
    models,
    policy,
    positions,
    precision,
    prevalence,
    requests,
    retention,
    sign_in,
    statement,
    subjects,
)
from service.console import pages

_DESCRIPTION: Final = """\
What a deployed language model was computing for the requests it served, in words, with the measure of
how far each reading can be trusted.

**An explanation is a hypothesis, never a fact.** `verified` says that the decoder works on this
activation; it never says that a claim in the text is true. What was not sampled was not
looked at: see `/v1/coverage`.

Create a key with `subtext key create --name NAME --scope explanations:read`. A browser signs in for a
session instead, which its cookie carries: at `/auth/login`, or with a key. Errors are problem documents
(RFC 9457). Unknown query parameters are refused. Times are UTC.
"""


def create_app(resources: Resources) -> FastAPI:
    """Return the application over these resources."""
    app = FastAPI(
        title="Subtext",
        version=version("subtext"),
        summary="Audits what a deployed language model is thinking while it serves traffic.",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,  # it needs a CDN
    )
    app.state.resources = resources
    app.router.routes.extend(_routes())
    handlers.install(app)
    app.add_middleware(Observe, metrics=resources.metrics)
    openapi.install(app)
    docs_page.install(app)
    pages.install(
        app,
        has_issuer=resources.issuer is not None,
        grafana_url=resources.grafana_url,
        scopes_of=scopes_of_session,
    )
    return app


@cache
def _routes() -> Sequence[BaseRoute]:
    """Return every operation. Routes keep nothing of an application, so all of a process share them.

    Reading the signatures of a hundred operations takes 0.2 s.
    """
    root = APIRouter(generate_unique_id_function=_operation_id)
    for routes in (
        explanations,
        requests,
        positions,
        flags,
        discoveries,
        incidents,
        history,
        precision,
        detectors,
        coverage,
        live,
        statement,
        configuration,
        comparison,
        concepts,
        policy,
        prevalence,
        models,
        access,
        keys,
        subjects,
        erasures,
        evidence,
        holds,
        retention,
        exports,
    ):
        root.include_router(
            routes.router,
            prefix="/v1",
            responses=problems(*ALWAYS),
            dependencies=[Depends(refuse_repeated_parameters)],
        )
    for routes in (sign_in, login, health):
        root.include_router(routes.router)
    return tuple(root.routes)


def _operation_id(route: APIRoute) -> str:
    # The function's name: stable, and what a generated client calls its method.
    return route.name
