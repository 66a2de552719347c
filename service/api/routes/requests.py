"""Requests of the audited model: everything known about one, or those of a trace."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query

from service.api.deps import Held, ReadsRequests, reading
from service.api.http.responses import problems
from service.api.parameters import MAX_LIMIT, NoParameters, Parameters, RequestIdInPath, TraceId
from service.api.schemas.request import RequestReport, TracedRequest, TracedRequests, report
from service.errors import ProblemError
from service.store.read import requests

router = APIRouter(tags=["requests"])
_LIMITS: Final = requests.Limits(captures=20, samples=1000)


class RequestParameters(Parameters):
    """Which requests to list."""

    trace_id: TraceId


@router.get("/requests", summary="Find the requests of a trace")
def list_requests(
    held: Held, _caller: ReadsRequests, parameters: Annotated[RequestParameters, Query()]
) -> TracedRequests:
    """Return the first 200 requests that said they belong to a trace, by their first capture.

    Clients choose trace ids, so this says what they said. A request is there only when a sample of it
    is stored: none means that none was sampled, audited and decoded yet, never that the trace had none.
    """
    with reading(held) as session:
        found = requests.list_of_trace(session, parameters.trace_id, MAX_LIMIT)
    return TracedRequests(
        requests=[TracedRequest.model_validate(one) for one in found.requests], requests_total=found.total
    )


# ":path", because nothing keeps a client from using slashes in its request ids.
@router.get(
    "/requests/{request_id:path}",
    summary="Get everything known under one request id",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_request(
    held: Held,
    caller: ReadsRequests,
    request_id: RequestIdInPath,
    _parameters: Annotated[NoParameters, Query()],
) -> RequestReport:
    """Return samples, explanations, flags and the coverage statement of each capture under the id.

    Clients choose request ids, and several requests may share one: each that was sampled is a capture of
    its own, and no summary or flag mixes two. The newest 20 are listed, with at most 1,000 samples each.
    404 means that no sample of it is stored: it was not sampled, not audited, or is not decoded
    yet. It never means that the request was clean. Text and tokens are withheld without
    `explanations:read_text`.
    """
    with reading(held) as session:
        view = requests.get_request(session, request_id, _LIMITS)
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_request",
            "no sample of this request is stored: it was not sampled, not audited, or is not decoded yet; "
            "this does not say that it was clean",
        )
    return report(view, with_text=caller.may_read_text)
