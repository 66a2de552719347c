"""Measured precision: what triage said of the flags of each concept."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from service.api.deps import Held, ReadsFlags, reading
from service.api.parameters import Absent, Name, Parameters, Time
from service.api.schemas.precision import PrecisionList, concept_precision
from service.store.read import precision

router = APIRouter(tags=["incidents"])


class PrecisionParameters(Parameters):
    """Which flags to count; all given ones must hold."""

    model: Name | Absent = Field(default=None, description="Served model name.")
    concept: Name | Absent = Field(default=None, description="The concept's name.")
    captured_after: Time | Absent = Field(
        default=None, description="Last matching capture at this time or later."
    )
    captured_before: Time | Absent = Field(
        default=None, description="First matching capture before this time."
    )


@router.get("/precision", summary="Get the measured precision of each concept")
def list_precision(
    held: Held, caller: ReadsFlags, parameters: Annotated[PrecisionParameters, Query()]
) -> PrecisionList:
    """Return, by model, layer, concept, severity, decoder and definitions, how many flags were right.

    Precision is of labelled flags alone, with an exact interval and the share that nobody labelled. Flags
    of another decoder or of other definitions are counted apart: they are another detector. There are as
    many rows as detectors that ever raised a flag, so no pages. Anomalies have no concept and are not here.
    """
    wanted = precision.Filter(**parameters.model_dump())
    with reading(held, caller) as session:
        return PrecisionList(items=[concept_precision(found) for found in precision.count(session, wanted)])
