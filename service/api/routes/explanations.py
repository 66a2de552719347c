"""Explanations: listed by filter, or one by id."""

import datetime as dt
import uuid
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.access.gate import Gate, Gated
from service.api.deps import Caller, Held, ReadsExplanations, reading
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import (
    Absent,
    Layer,
    Name,
    NoParameters,
    PageParameters,
    PValue,
    RequestId,
    Time,
    Truth,
    Words,
)
from service.api.schemas.explanation import Explanation, ExplanationPage, explanation, search
from service.errors import FieldError, ProblemError, invalid_input
from service.store.read import explanations, words
from service.store.read.page import Position

router = APIRouter(tags=["explanations"])
_LISTING: Final = "explanations"


class ExplanationParameters(PageParameters):
    """Filters of the listing; all given ones must hold."""

    model: Name | Absent = Field(default=None, description="Served model name.")
    request: RequestId | Absent = Field(default=None, description="The audited request's id.")
    layer: Layer | Absent = Field(default=None, description="K: the output of block K.")
    concept: Name | Absent = Field(
        default=None, description="Explanations that matched this concept. A match alone is no flag."
    )
    verified: Truth | Absent = Field(
        default=None, description="Only readings above, or not above, the threshold."
    )
    max_anomaly_p: PValue | Absent = Field(
        default=None,
        description="Only readings of activations whose anomaly p-value is this or smaller: it is of one "
        "activation, not corrected for how many were tested. None that was not scored.",
    )
    q: Words | Absent = Field(
        default=None,
        description='Words inside texts: all of them, in any case and form as written; `"..."` a phrase, '
        "`or` between words, `-` before one that is left out. Languages without spaces between words are "
        "found by whole runs of letters. It reads texts: it needs `explanations:read_text`, a purpose, and "
        "`captured_after` or `request`. A URL stays in histories and proxies' logs: mind it with names.",
        examples=['"first aid" or bandage'],
    )
    captured_after: Time | Absent = Field(default=None, description="Captured at this time or later.")
    captured_before: Time | Absent = Field(default=None, description="Captured before this time.")

    def filter(self) -> explanations.Filter:
        """Return the store's filter."""
        return explanations.Filter(
            model=self.model,
            request_id=self.request,
            layer=self.layer,
            concept=self.concept,
            verified=self.verified,
            max_anomaly_p=self.max_anomaly_p,
            words=self.q,
            captured_after=self.captured_after,
            captured_before=self.captured_before,
        )


@router.get("/explanations", summary="List explanations, newest capture first")
def list_explanations(
    *,
    held: Held,
    caller: ReadsExplanations,
    gate: Gated,
    parameters: Annotated[ExplanationParameters, Query()],
    request: Request,
    response: Response,
) -> ExplanationPage:
    """Return one page of explanations, newest capture first.

    With `request` the captures under that id come one after the other, as at `/v1/requests/{request_id}`,
    each with its own newest first.

    Each carries its fidelity, its inclusion probability and its calibration size. Following
    `next_cursor` meets every explanation that was stored when the first page was read exactly once.
    Text and tokens are withheld without the scope `explanations:read_text` and a stated purpose.

    With `concept` and another filter a page may have fewer items than `limit`, or none, and a
    `next_cursor`: it looks up a thousand matches and no more.

    With `q` texts are searched, a bounded part of the period a page: `search` says how far, and a page may
    have fewer items than `limit`, or none, and a `next_cursor`. Each such page is in the access log, with
    the words' digest, also where nothing was found.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    _check_search(gate, caller, parameters)
    wanted, found = parameters.filter(), None
    with reading(held, caller) as session:
        if wanted.words is None:
            page = explanations.list_explanations(session, wanted, after, parameters.limit)
        else:
            found = _search(session, wanted, after, parameters.limit, held.clock())
            page = found.page
    disclosure = gate.disclose(caller, page.items, searched=wanted.words)
    return ExplanationPage(
        items=[explanation(view, disclosure) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
        search=None if found is None else search(found, disclosure),
    )


def _check_search(gate: Gate, caller: Caller, parameters: ExplanationParameters) -> None:
    """Raise the 403 or the 422 where words are given that must not be looked for."""
    if parameters.q is None:
        return
    gate.require_text(caller, "q")
    if parameters.captured_after is None and parameters.request is None:
        raise _wrong("captured_after", "period_required", "with q, say since when texts are to be searched")


def _search(
    session: Session, wanted: explanations.Filter, after: Position | None, limit: int, now: dt.datetime
) -> words.Found:
    try:
        return words.search(session, wanted, after, limit, now)
    except words.NoWordsError as error:
        message = (
            "write at least one word that is to be found; signs, and words to be left out, find nothing"
        )
        raise _wrong("q", "no_words", message) from error


def _wrong(field: str, code: str, message: str) -> ProblemError:
    return invalid_input([FieldError(location="query", field=field, code=code, message=message)])


@router.get(
    "/explanations/{explanation_id}",
    summary="Get one explanation",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_explanation(
    held: Held,
    caller: ReadsExplanations,
    gate: Gated,
    explanation_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> Explanation:
    """Return one explanation with its fidelity.

    Text is withheld without `explanations:read_text` and a stated purpose.
    """
    with reading(held, caller) as session:
        view = explanations.get_explanation(session, explanation_id)
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND, "unknown_explanation", f"no explanation {explanation_id} is stored"
        )
    return explanation(view, gate.disclose(caller, [view]))
