"""Detectors: how each concept performs, by labels, calibration and canaries together."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.deps import Held, ReadsFlags, reading
from service.api.parameters import Absent, Name, Parameters, Time
from service.api.routes.coverage import wrong_range
from service.api.schemas.history import Detector, DetectorList, RuleRate, UnflaggedCanaries
from service.api.schemas.precision import concept_precision
from service.api.schemas.statement import CanaryRecall, canary_recalls
from service.store.canary import runs as canary_runs
from service.store.read import precision

router = APIRouter(tags=["incidents"])


class DetectorParameters(Parameters):
    """Of which range, and of what."""

    start: Time = Field(
        alias="from", description="Start of the range, inclusive: of captures and canaries."
    )
    end: Time = Field(alias="to", description="End of the range, exclusive.")
    model: Name | Absent = Field(default=None, description="Served model name.")
    concept: Name | Absent = Field(default=None, description="The concept's name.")


@router.get("/detectors", summary="Get how each detector performed")
def list_detectors(
    held: Held, caller: ReadsFlags, parameters: Annotated[DetectorParameters, Query()]
) -> DetectorList:
    """Return each detector's labelled precision, calibrated false-positive rate and canary recall.

    Each has its denominator and its interval or limit. Precision is of flags that people labelled, the
    false-positive rate of the benign requests of the calibration, and recall of the operator's own
    prompts: none of them is the rate on all traffic.
    """
    with reading(held, caller) as session:
        return performance(session, parameters)


def performance(session: Session, parameters: DetectorParameters) -> DetectorList:
    """Return how each detector performed; raises 422 for an empty range."""
    if parameters.start >= parameters.end:
        raise wrong_range("empty_range", "must be earlier than the end of the range")
    wanted = precision.Filter(
        model=parameters.model,
        concept=parameters.concept,
        captured_after=parameters.start,
        captured_before=parameters.end,
    )
    recalls = _recalls(session, parameters.start, parameters.end, parameters.model)
    rates = precision.list_rates(session, wanted)
    items = []
    for counts in precision.count(session, wanted):
        key = (counts.model, counts.layer, counts.concept, counts.decoder_id, counts.concepts_digest)
        rate = rates.get(key)
        items.append(
            Detector(
                **dict(concept_precision(counts)),
                false_positive_rate=None if rate is None else RuleRate.model_validate(rate),
                canaries=recalls.get((counts.model, counts.concept)),
            )
        )
    flagged = {(one.model, one.concept) for one in items}
    return DetectorList(
        items=items,
        without_flags=[
            UnflaggedCanaries(model=model, canaries=recall)
            for (model, concept), recall in sorted(recalls.items())
            if (model, concept) not in flagged and parameters.concept in {None, concept}
        ],
    )


def _recalls(
    session: Session, start: dt.datetime, end: dt.datetime, model: str | None
) -> dict[tuple[str, str], CanaryRecall]:
    found = canary_runs.count(session, start, end, model)
    return {
        (name, recall.concept): recall
        for name in {run.model for run in found}
        for recall in canary_recalls([run for run in found if run.model == name])
    }
