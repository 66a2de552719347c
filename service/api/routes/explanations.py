"""Explanations: listed by filter, or one by id."""

import uuid
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from service.api.deps import Held, ReadsExplanations, reading
from service.api.http.responses import problems
from service.api.paging import link
from service.api.parameters import Absent, Layer, Name, NoParameters, PageParameters, RequestId, Time, Truth
from service.api.schemas.explanation import Explanation, ExplanationPage, explanation
from service.errors import ProblemError
from service.store.read import explanations

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
            captured_after=self.captured_after,
            captured_before=self.captured_before,
        )


@router.get("/explanations", summary="List explanations, newest capture first")
def list_explanations(
    held: Held,
    caller: ReadsExplanations,
    parameters: Annotated[ExplanationParameters, Query()],
    request: Request,
    response: Response,
) -> ExplanationPage:
    """Return one page of explanations, newest capture first.

    With `request` the captures under that id come one after the other, as at `/v1/requests/{request_id}`,
    each with its own newest first.

    Each carries its fidelity, its inclusion probability and its calibration size. Following
    `next_cursor` meets every explanation that was stored when the first page was read exactly once.
    Text and tokens are withheld without the scope `explanations:read_text`.
    """
    after = link.position(parameters, caller.listing(_LISTING))
    with reading(held, caller) as session:
        page = explanations.list_explanations(session, parameters.filter(), after, parameters.limit)
    return ExplanationPage(
        items=[explanation(view, with_text=caller.may_read_text) for view in page.items],
        next_cursor=link.link_next(request, response, parameters, caller.listing(_LISTING), page.next),
    )


@router.get(
    "/explanations/{explanation_id}",
    summary="Get one explanation",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_explanation(
    held: Held,
    caller: ReadsExplanations,
    explanation_id: uuid.UUID,
    _parameters: Annotated[NoParameters, Query()],
) -> Explanation:
    """Return one explanation with its fidelity; text is withheld without `explanations:read_text`."""
    with reading(held, caller) as session:
        view = explanations.get_explanation(session, explanation_id)
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND, "unknown_explanation", f"no explanation {explanation_id} is stored"
        )
    return explanation(view, with_text=caller.may_read_text)
