"""Prevalence: how common a concept is in the requests, from the random baseline."""

import datetime as dt
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.deps import Held, ReadsFlags, reading
from service.api.http.responses import problems
from service.api.parameters import Absent, Name, Parameters, Time
from service.api.schemas.prevalence import PrevalenceList, PrevalenceReport, assumption, estimate
from service.errors import FieldError, ProblemError, invalid_input
from service.prevalence.assumptions import assumptions
from service.prevalence.estimate import CONFIDENCE
from service.prevalence.retained import retained_by_cell
from service.prevalence.statement import concept_prevalences
from service.store.canary import runs as canary_runs
from service.store.read import prevalence

router = APIRouter(tags=["prevalence"])
_LONGEST: Final = dt.timedelta(days=31)


class RangeParameters(Parameters):
    """In which range."""

    start: Time = Field(alias="from", description="Start of the range, inclusive.")
    end: Time = Field(
        alias="to", description="End of the range, exclusive; at most 31 days after its start."
    )

    def check(self) -> None:
        """Raise 422 when the range is empty or too long."""
        if self.start >= self.end:
            raise _wrong_range("empty_range", "must be earlier than the end of the range")
        if self.end - self.start > _LONGEST:
            raise _wrong_range("range_too_long", "the range may span at most 31 days; shorten it")


class PrevalenceParameters(RangeParameters):
    """Of what, in which range."""

    model: Name = Field(description="Served model name.")
    concept: Name = Field(description="The concept's name.")


class PrevalenceListParameters(RangeParameters):
    """Of which model, in which range."""

    model: Name | Absent = Field(default=None, description="Served model name; default: all.")


def _wrong_range(code: str, message: str) -> Exception:
    return invalid_input([FieldError(location="query", field="from", code=code, message=message)])


@router.get(
    "/prevalence",
    summary="Estimate how common a concept is",
    responses=problems(HTTPStatus.NOT_FOUND),
)
def get_prevalence(
    held: Held, caller: ReadsFlags, parameters: Annotated[PrevalenceParameters, Query()]
) -> PrevalenceReport:
    """Return the share of requests with the concept, with its interval, by layer and decoder.

    Requests of the random baseline are weighted by the inverse of their inclusion probability, and by what
    was lost in their stratum and minute. `assumptions` says what the figures take for granted, and what of
    it does not hold in this range.
    """
    with reading(held, caller) as session:
        return estimate_share(session, parameters)


@router.get("/concepts/prevalence", summary="Estimate how common each concept is")
def list_prevalences(
    held: Held, caller: ReadsFlags, parameters: Annotated[PrevalenceListParameters, Query()]
) -> PrevalenceList:
    """Return what `GET /v1/prevalence` says of each concept that was flagged or that canaries ran for.

    They are those that `GET /v1/detectors` lists of the range, by model and name. The requests that were
    judged are counted once for all concepts of a model. A concept that is missing here was not flagged:
    whether it was watched for, `GET /v1/concepts` tells.
    """
    parameters.check()
    with reading(held, caller) as session:
        return _estimate_all(session, parameters)


def estimate_share(session: Session, parameters: PrevalenceParameters) -> PrevalenceReport:
    """Return the estimate; raises 404 for an unknown model and 422 for a wrong range."""
    parameters.check()
    model = prevalence.find_model(session, parameters.model)
    if model is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            "unknown_model",
            "no decoder has read this model yet; `GET /v1/models` lists those that are known",
        )
    window = prevalence.Window(model=model, start=parameters.start, end=parameters.end)
    concept = parameters.concept
    uncalibrated = prevalence.list_flagged(session, window, concept).get(concept)
    [report] = _reports(session, window, {concept: uncalibrated})
    return report


def _estimate_all(session: Session, parameters: PrevalenceListParameters) -> PrevalenceList:
    start, end = parameters.start, parameters.end
    runs = canary_runs.count(session, start, end, parameters.model)
    items: list[PrevalenceReport] = []
    for model in prevalence.list_models(session):
        if parameters.model in {None, model.name}:
            window = prevalence.Window(model=model, start=start, end=end)
            asked: dict[str, int | None] = {run.concept: None for run in runs if run.model == model.name}
            asked.update(prevalence.list_flagged(session, window))
            items += _reports(session, window, asked)
    return PrevalenceList(start=start, end=end, items=items)


def _reports(
    session: Session, window: prevalence.Window, asked: Mapping[str, int | None]
) -> list[PrevalenceReport]:
    """Return the report of each concept by name.

    Each comes with how many of its flags in the window have no known rate; None where none was raised.
    """
    if not asked:
        return []
    groups = prevalence.list_groups(session, window, asked)
    retained = retained_by_cell(prevalence.list_minutes(session, window))
    seen = prevalence.count_seen(session, window)
    decoders = prevalence.list_decoders(session, window)
    reports = []
    for concept, uncalibrated in sorted(asked.items()):
        found = concept_prevalences(groups, retained, [concept])
        is_known = uncalibrated is not None or prevalence.is_known(session, window, concept)
        is_flagged = any(one.requests_flagged for one in found)
        reports.append(
            PrevalenceReport(
                model=window.model.name,
                concept=concept,
                start=window.start,
                end=window.end,
                confidence=CONFIDENCE,
                calibrated=is_flagged and not uncalibrated,
                estimates=[estimate(one, decoders[one.reader.decoder_id]) for one in found],
                assumptions=[
                    assumption(one)
                    for one in assumptions(found, seen, is_known=is_known, uncalibrated=uncalibrated or 0)
                ],
            )
        )
    return reports
