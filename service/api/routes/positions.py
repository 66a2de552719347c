"""The sampled positions of one capture, for readers that draw a whole request."""

import uuid
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from service.api.access.gate import Gated
from service.api.deps import Held, ReadsRequests, reading
from service.api.http.responses import problems
from service.api.parameters import Absent, Layer, Name, Parameters
from service.api.schemas.position import PositionPage, position_page
from service.errors import ProblemError
from service.store.read import positions

router = APIRouter(tags=["requests"])
_MAX_POSITIONS: Final = 1000
_LAST_POSITION: Final = 2**31 - 1


class PositionParameters(Parameters):
    """Of which model and layer, and which page."""

    model: Name = Field(description="Served model name of the capture.")
    layer: Layer | Absent = Field(
        default=None, description="K: the output of block K; without it the lowest that was sampled."
    )
    after: Annotated[int, Field(ge=0, le=_LAST_POSITION)] | Absent = Field(
        default=None, description="`next_after` of the page before: positions behind it."
    )
    limit: int = Field(default=_MAX_POSITIONS, ge=1, le=_MAX_POSITIONS, description="Positions a page.")


@router.get(
    "/captures/{capture_id}/positions",
    summary="List the sampled positions of a capture",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def list_positions(
    held: Held,
    caller: ReadsRequests,
    gate: Gated,
    capture_id: uuid.UUID,
    parameters: Annotated[PositionParameters, Query()],
) -> PositionPage:
    """Return one page of the sampled positions of a capture at one layer, in order, without texts.

    Each position has its token, why it was chosen, and the figures of its readings. Positions between them
    were not sampled. 404 means that no sample of the capture is stored, never that it was clean. Tokens are
    withheld without `explanations:read_text` and a stated purpose.
    """
    after = -1 if parameters.after is None else parameters.after
    with reading(held, caller) as session:
        asked = positions.Asked(capture_id, parameters.model, parameters.layer, after, parameters.limit)
        view = positions.list_of_capture(session, asked)
    if view is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_capture",
            f"no sample of capture {capture_id} at this model is stored: it was not sampled, not audited,"
            " or is not decoded yet; this does not say that it was clean",
        )
    disclosure = gate.disclose(caller, [], [found.sample for found in view.items])
    return position_page(capture_id, view, disclosure)
