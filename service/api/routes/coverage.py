"""Coverage: what was seen, sampled, dropped and decoded in a range of time."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from service.api.deps import Held, ReadsCoverage, reading
from service.api.parameters import Absent, Name, Parameters, Time
from service.api.schemas.coverage import CoverageReport
from service.api.vocabulary import Stratum
from service.coverage.balance import balances
from service.coverage.blind_spots import blind_spots
from service.coverage.count import Count, by_step
from service.coverage.losses import losses, sums_by_model
from service.errors import FieldError, invalid_input
from service.store.read import coverage

router = APIRouter(tags=["coverage"])
_DEFAULT_RANGE: Final = dt.timedelta(hours=1)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MAX_STEPS: Final[dict[coverage.Step, int]] = {"minute": 1440, "hour": 744, "day": 366}


class CoverageParameters(Parameters):
    """Which range to report on."""

    start: Time | Absent = Field(
        default=None, alias="from", description="Start of the range; default: one hour before its end."
    )
    end: Time | Absent = Field(default=None, alias="to", description="End of the range; default: now.")
    step: coverage.Step = Field(
        default="minute",
        description="Length of one entry of `counts`; at most 1440 minutes, 744 hours or 366 days a range.",
    )
    model: Name | Absent = Field(default=None, description="Served model name; default: all.")
    stratum: Stratum | Absent = Field(
        default=None,
        description="Only requests that were sampled by this rule, wherever strata are told apart; "
        "default: all. Totals stay totals.",
    )


def plan(parameters: CoverageParameters, now: dt.datetime) -> coverage.Range:
    """Return the range widened to whole steps; raises 422 when it is empty or too long."""
    end = parameters.end or now
    start = parameters.start or end - _DEFAULT_RANGE
    if start >= end:
        raise wrong_range("empty_range", "must be earlier than the end of the range")
    wanted = whole_steps(start, end, parameters.step, parameters.model)
    most = _MAX_STEPS[parameters.step]
    if wanted.end - wanted.start > coverage.LENGTHS[parameters.step] * most:
        raise wrong_range(
            "range_too_long",
            f"the range may span at most {most} {parameters.step}s; shorten it or enlarge step",
        )
    return wanted


def whole_steps(
    start: dt.datetime, end: dt.datetime, step: coverage.Step, model: str | None
) -> coverage.Range:
    """Return the range widened to whole steps."""
    length = coverage.LENGTHS[step]
    return coverage.Range(
        start=start - (start - _EPOCH) % length, end=end + (_EPOCH - end) % length, model=model
    )


def wrong_range(code: str, message: str) -> Exception:
    """Return the 422 for a range of time."""
    return invalid_input([FieldError(location="query", field="from", code=code, message=message)])


@router.get("/coverage", summary="Report what was looked at, and what was not")
def get_coverage(
    held: Held, caller: ReadsCoverage, parameters: Annotated[CoverageParameters, Query()]
) -> CoverageReport:
    """Return the counts of every hop with their losses, ratios with their denominators, and blind spots.

    `reconciliation` says of every hop whether what came in came out again. Rows count in the minute of
    their capture at every hop, so any range can be balanced.
    """
    wanted = plan(parameters, dt.datetime.now(dt.UTC))
    with reading(held, caller) as session:
        settled_before = coverage.list_settled_before(session, parameters.model)
        counts = coverage.list_counts(session, wanted, parameters.step, settled_before)
    return _report(parameters, wanted, counts, settled_before)


def _report(
    parameters: CoverageParameters,
    wanted: coverage.Range,
    counts: Sequence[Count],
    settled_before: Mapping[str, dt.datetime],
) -> CoverageReport:
    """Return the statement for these counts, which are of all strata.

    A wanted stratum narrows every list that names strata; what is a total stays one.
    """
    stratum = parameters.stratum
    narrowed = [count for count in counts if stratum in {None, count.stratum}]
    return CoverageReport(
        start=wanted.start,
        end=wanted.end,
        step=parameters.step,
        models=sums_by_model(counts, stratum),
        reconciliation=balances(counts, settled_before, stratum),
        losses=losses(narrowed),
        counts=by_step(narrowed),
        blind_spots=blind_spots(counts),
    )
