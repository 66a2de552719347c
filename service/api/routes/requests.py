"""Requests of the audited model: everything known about one, or those of a trace."""

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.convertors import PathConvertor, register_url_convertor

from service.api.access.disclosure import Disclosure
from service.api.access.gate import Gate, Gated
from service.api.caller import Caller
from service.api.deps import Held, ReadsRequests, reading
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import (
    MAX_LIMIT,
    Absent,
    PageParameters,
    Parameters,
    RequestIdInPath,
    TraceId,
    TraceIdInPath,
    Truth,
)
from service.api.schemas.request import (
    Parts,
    RequestReport,
    TracedRequest,
    TracedRequests,
    TraceReport,
    report,
    trace_report,
)
from service.errors import ProblemError
from service.store.read import requests, traces

router = APIRouter(tags=["requests"])
_LISTING: Final = "captures"
_SAMPLES: Final = 1000
_MAX_CAPTURES: Final = 20  # each with its samples


class RequestParameters(Parameters):
    """Which requests to list."""

    trace_id: TraceId


@router.get("/requests", summary="Find the requests of a trace")
def list_requests(
    held: Held, caller: ReadsRequests, parameters: Annotated[RequestParameters, Query()]
) -> TracedRequests:
    """Return the first 200 requests that said they belong to a trace, by their first capture.

    Of a trace the first 10,000 samples are read. `truncated` says that there are more: then later requests
    and samples are not counted.
    Clients choose trace ids, so this says what they said. A request is there only when a sample of it
    is stored: none means that none was sampled, audited and decoded yet, never that the trace had none.
    """
    with reading(held, caller) as session:
        found = requests.list_of_trace(session, parameters.trace_id, MAX_LIMIT)
    return TracedRequests(
        requests=[TracedRequest.model_validate(one) for one in found.requests],
        requests_total=found.total,
        truncated=found.truncated,
    )


class CaptureParameters(PageParameters):
    """Which page of the captures."""

    limit: int = Field(default=_MAX_CAPTURES, ge=1, le=_MAX_CAPTURES, description="Captures a page.")


class ReportParameters(CaptureParameters):
    """Which captures of a request, and how much of each."""

    capture_id: uuid.UUID | Absent = Field(default=None, description="Only the capture with this identity.")
    rows: Truth = Field(
        default=True,
        description="`false` leaves `samples` and `explanations` empty; every figure stays as it is.",
    )
    summary: Truth = Field(
        default=True,
        description="`false` leaves `summary` null. With `rows=false` no reading is loaded then: it is the "
        "quickest answer, and reads no text.",
    )


class _AnyText(PathConvertor):
    """The rest of a path, line breaks and slashes too: nothing keeps a client from ids with both."""

    regex = "(?s:.*)"


register_url_convertor("any_text", _AnyText())


@router.get(
    "/requests/{request_id:any_text}",
    summary="Get everything known under one request id",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_request(
    *,
    held: Held,
    caller: ReadsRequests,
    gate: Gated,
    request_id: RequestIdInPath,
    parameters: Annotated[ReportParameters, Query()],
    request: Request,
    response: Response,
) -> RequestReport:
    """Return samples, explanations, flags and the coverage statement of each capture under the id.

    Clients choose request ids, and several requests may share one: each that was sampled is a capture of
    its own, and no summary or flag mixes two. A page holds the newest first, with at most 1,000 samples
    each; following `next_cursor` meets every capture that was stored when the first page was read.
    404 means that no sample of it is stored: it was not sampled, not audited, or is not decoded
    yet. It never means that the request was clean. Text and tokens are withheld without
    `explanations:read_text` and a stated purpose.
    """
    listing = caller.listing(f"{_LISTING} of {request_id}")
    after = link.position(parameters, listing)
    with_rows = parameters.rows or parameters.summary
    limits = requests.Limits(captures=parameters.limit, samples=_SAMPLES, with_rows=with_rows)
    with reading(held, caller) as session:
        view = requests.get_request(session, request_id, limits, after, parameters.capture_id)
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_request",
            "no sample of this request is stored: it was not sampled, not audited, or is not decoded yet; "
            "this does not say that it was clean",
        )
    next_cursor = link.link_next(request, response, parameters, listing, view.captures.next)
    disclosure = _disclose(gate, caller, view.captures.items)
    parts = Parts(rows=parameters.rows, summary=parameters.summary)
    return report(view, next_cursor, disclosure, parts)


@router.get(
    "/traces/{trace_id}",
    summary="Get everything known of a trace",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_trace(
    *,
    held: Held,
    caller: ReadsRequests,
    gate: Gated,
    trace_id: TraceIdInPath,
    parameters: Annotated[CaptureParameters, Query()],
    request: Request,
    response: Response,
) -> TraceReport:
    """Return samples, explanations, flags and the coverage statement of each request of a trace.

    Clients choose trace ids, so this says what they said. A page holds the newest first, with at most
    1,000 samples each; following `next_cursor` meets every request that was stored when the first page was
    read. Of a trace the first 10,000 samples are read to know its requests; `truncated` says that there are
    more. 404 means that no sample of it is stored: none was sampled, audited and decoded yet. It never
    means that the trace was clean. Text and tokens are withheld without `explanations:read_text` and a
    stated purpose.
    """
    listing = caller.listing(f"captures of trace {trace_id}")
    after = link.position(parameters, listing)
    limits = requests.Limits(captures=parameters.limit, samples=_SAMPLES)
    with reading(held, caller) as session:
        view = traces.get_trace(session, trace_id, limits, after)
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_trace",
            "no sample of this trace is stored: none was sampled, audited and decoded yet; this does not"
            " say that it was clean",
        )
    next_cursor = link.link_next(request, response, parameters, listing, view.captures.next)
    disclosure = _disclose(gate, caller, view.captures.items)
    return trace_report(trace_id, view, next_cursor, disclosure)


def _disclose(gate: Gate, caller: Caller, captures: Sequence[requests.CaptureView]) -> Disclosure:
    """Return what of the captures on a page may be shown, once that is entered."""
    return gate.disclose(
        caller,
        [found for capture in captures for found in capture.explanations],
        [found.sample for capture in captures for found in capture.samples],
    )
