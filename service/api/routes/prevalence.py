"""Prevalence: how common a concept is in the requests, from the random baseline."""

import datetime as dt
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from service.api.deps import Held, ReadsFlags, reading
from service.api.http.responses import problems
from service.api.parameters import Name, Parameters, Time
from service.api.schemas.prevalence import PrevalenceReport, assumption, estimate
from service.errors import FieldError, ProblemError, invalid_input
from service.prevalence.assumptions import assumptions
from service.prevalence.estimate import CONFIDENCE
from service.prevalence.retained import retained_by_cell
from service.prevalence.statement import concept_prevalences
from service.store.read import prevalence

router = APIRouter(tags=["prevalence"])
_LONGEST: Final = dt.timedelta(days=31)


class PrevalenceParameters(Parameters):
    """Of what, in which range."""

    model: Name = Field(description="Served model name.")
    concept: Name = Field(description="The concept's name.")
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
    parameters.check()
    with reading(held, caller) as session:
        model = prevalence.find_model(session, parameters.model)
        if model is None:
            raise ProblemError(
                HTTPStatus.NOT_FOUND,
                "unknown_model",
                "no decoder has read this model yet; `GET /v1/models` lists those that are known",
            )
        window = prevalence.Window(model=model, start=parameters.start, end=parameters.end)
        groups = prevalence.list_groups(session, window, parameters.concept)
        minutes = prevalence.list_minutes(session, window)
        seen = prevalence.count_seen(session, window)
        decoders = prevalence.list_decoders(session, window)
        uncalibrated = prevalence.count_uncalibrated(session, window, parameters.concept)
        is_known = prevalence.is_known(session, window, parameters.concept)
    found = concept_prevalences(groups, retained_by_cell(minutes), [parameters.concept])
    is_flagged = any(one.requests_flagged for one in found)
    return PrevalenceReport(
        model=parameters.model,
        concept=parameters.concept,
        start=parameters.start,
        end=parameters.end,
        confidence=CONFIDENCE,
        calibrated=is_flagged and not uncalibrated,
        estimates=[estimate(one, decoders[one.reader.decoder_id]) for one in found],
        assumptions=[
            assumption(one)
            for one in assumptions(found, seen, is_known=is_known, uncalibrated=uncalibrated)
        ],
    )
