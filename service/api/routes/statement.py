"""The coverage statement: for any period, what was looked at hour by hour, and what was not."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from service.api.deps import Held, ReadsCoverage, reading
from service.api.parameters import Absent, Name, Parameters, Time
from service.api.routes.coverage import whole_steps, wrong_range
from service.api.schemas.blind_spot import BlindSpot
from service.api.schemas.coverage import Sums
from service.api.schemas.statement import (
    LISTED_GAPS,
    NOT_AVAILABLE,
    Canaries,
    CoverageStatement,
    EquationCheck,
    Gap,
    MinuteSums,
    ModelStatement,
    OpenErasures,
    Removal,
    StepLoss,
    StepStatement,
    canary_recalls,
)
from service.coverage.balance import ModelBalance, balances
from service.coverage.blind_spots import blind_spots
from service.coverage.count import Count
from service.coverage.gaps import Span, gaps, sums_by_step, total
from service.coverage.losses import losses, traffic_sums
from service.retention import holds, removals
from service.store.canary import runs as canary_runs
from service.store.erasure import requests
from service.store.read import coverage
from service.store.read.models import list_models
from subtext_sidecar.contract.counters import PluginCounter, Stratum

router = APIRouter(tags=["coverage"])
_LONGEST: Final = dt.timedelta(days=366)
_HOURS_UP_TO: Final = dt.timedelta(days=31)


class StatementParameters(Parameters):
    """Of which range and model."""

    start: Time = Field(alias="from", description="Start of the range; widened to a whole hour or day.")
    end: Time = Field(alias="to", description="End of the range, at most 366 days after its start.")
    model: Name | Absent = Field(default=None, description="Served model name; default: all.")
    resolution: Literal["hour", "day"] | Absent = Field(
        default=None, description="Default: hours up to 31 days; a longer range is always told by day."
    )


@router.get("/coverage/statement", summary="State by hour what was looked at, and what was not")
def get_coverage_statement(
    held: Held, caller: ReadsCoverage, parameters: Annotated[StatementParameters, Query()]
) -> CoverageStatement:
    """Return what was seen, sampled, lost and decoded by hour, with every denominator.

    `gaps` tells minutes without traffic from minutes of which nobody reported. `equations` says whether
    what came into each hop came out of it. Recall is that of the operator's canaries. What this version
    cannot tell is in `not_available`, and is not zero. A range of more than 31 days is told by day.
    """
    with reading(held, caller) as session:
        return state(session, parameters, dt.datetime.now(dt.UTC))


def state(session: Session, parameters: StatementParameters, now: dt.datetime) -> CoverageStatement:
    """Return the statement as it is known now; raises 422 for a range that is empty or too long."""
    resolution = _resolution(parameters)
    wanted = whole_steps(parameters.start, parameters.end, resolution, parameters.model)
    facts = _gather(session, wanted, resolution)
    of_model: defaultdict[str, list[Count]] = defaultdict(list)
    for count in facts.counts:
        of_model[count.model].append(count)
    return CoverageStatement(
        start=wanted.start,
        end=wanted.end,
        as_of=now,
        resolution=resolution,
        models=[
            _model(name, of_model[name], facts, _Asked(wanted, resolution, now))
            # A model whose canaries all got lost may have no count and no reading.
            for name in sorted({*facts.models, *of_model, *(run.model for run in facts.runs)})
        ],
        blind_spots=[BlindSpot.model_validate(spot) for spot in blind_spots(facts.counts)],
        erasures=OpenErasures(**requests.count_open(session, now)._asdict()),
        legal_holds=list(facts.holds),
        removals=[Removal(**one._asdict()) for one in facts.removals],
        not_available=list(NOT_AVAILABLE),
    )


_Resolution = Literal["hour", "day"]


def _resolution(parameters: StatementParameters) -> _Resolution:
    length = parameters.end - parameters.start
    if length <= dt.timedelta(0):
        raise wrong_range("empty_range", "must be earlier than the end of the range")
    if length > _LONGEST:
        raise wrong_range("range_too_long", "the range may span at most 366 days; shorten it")
    return "day" if parameters.resolution == "day" or length > _HOURS_UP_TO else "hour"


class _Facts(NamedTuple):
    models: Sequence[str]
    counts: Sequence[Count]
    settled_before: Mapping[str, dt.datetime]
    heard: Mapping[str, coverage.Heard]
    runs: Sequence[canary_runs.Runs]
    holds: Sequence[uuid.UUID]
    removals: Sequence[removals.Removal]


def _gather(session: Session, wanted: coverage.Range, resolution: _Resolution) -> _Facts:
    settled_before = coverage.list_settled_before(session, wanted.model)
    model_ids = {view.model.name: view.model.id for view in list_models(session)}
    known = list(model_ids)
    return _Facts(
        [name for name in known if wanted.model in {None, name}],
        coverage.list_counts(session, wanted, resolution, settled_before),
        settled_before,
        coverage.list_heard(session, wanted),
        canary_runs.count(session, wanted.start, wanted.end, wanted.model),
        holds.list_reaching(session, model_ids.get(wanted.model or ""), wanted.start, wanted.end),
        removals.list_removals(session, wanted.start, wanted.end, wanted.model),
    )


class _Asked(NamedTuple):
    wanted: coverage.Range
    resolution: _Resolution
    now: dt.datetime


def _model(name: str, counts: Sequence[Count], facts: _Facts, asked: _Asked) -> ModelStatement:
    wanted, now = asked.wanted, asked.now
    length = coverage.LENGTHS[asked.resolution]
    starts = [wanted.start + number * length for number in range((wanted.end - wanted.start) // length)]
    # The minute that is under way has not passed.
    passed = Span(wanted.start, max(wanted.start, min(wanted.end, now.replace(second=0, microsecond=0))))
    found = gaps(passed, *facts.heard.get(name, ((), ())))
    minutes = sums_by_step(passed, found, starts, length)
    by_start: defaultdict[dt.datetime, list[Count]] = defaultdict(list)
    for count in counts:
        by_start[count.start].append(count)
    longest = sorted(found, key=lambda gap: (-gap.minutes, gap.start))[:LISTED_GAPS]
    balance = next(iter(balances(counts, facts.settled_before)), None)
    return ModelStatement(
        model=name,
        totals=Sums.model_validate(traffic_sums(counts)),
        minutes=MinuteSums.model_validate(total(minutes)),
        steps=[
            _step(start, by_start[start], MinuteSums.model_validate(of_step))
            for start, of_step in zip(starts, minutes, strict=True)
        ],
        gaps_total=len(found),
        gaps=[Gap.model_validate(gap) for gap in sorted(longest)],
        settled_before=facts.settled_before.get(name),
        balanced=None if balance is None else balance.balanced,
        equations=_equations(balance),
        canaries=_canaries(counts, [run for run in facts.runs if run.model == name]),
    )


def _step(start: dt.datetime, counts: Sequence[Count], minutes: MinuteSums) -> StepStatement:
    sums = traffic_sums(counts)
    lost: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for loss in losses(count for count in counts if count.stratum != Stratum.CANARY):
        lost[loss.hop, loss.kind, loss.reason] += loss.count
    return StepStatement(
        start=start,
        minutes=minutes,
        requests_sampled=sums.requests_sampled,
        rows_decoded=sums.rows_decoded,
        rows_thinned=sums.rows_thinned,
        rows_duplicate=sums.rows_duplicate,
        rows_dropped=sums.rows_dropped,
        rows_dead_lettered=sums.rows_dead_lettered,
        rows_unsettled=sums.rows_unsettled,
        losses=[
            StepLoss(hop=hop, kind=kind, reason=reason, count=count)
            for (hop, kind, reason), count in sorted(lost.items())
        ],
    )


def _equations(balance: ModelBalance | None) -> list[EquationCheck]:
    if balance is None:
        return []
    return [
        EquationCheck(
            place=place.place,
            equation=place.equation,
            rows_in=sum(place.rows_in.values()),
            rows_out=sum(place.rows_out.values()),
            in_flight=place.in_flight,
            difference=place.difference,
            balanced=place.balanced,
        )
        for place in balance.places
    ]


def _canaries(counts: Sequence[Count], runs: list[canary_runs.Runs]) -> Canaries:
    seen = sum(
        count.value
        for count in counts
        if count.stratum == Stratum.CANARY and count.counter == PluginCounter.REQUESTS_SEEN
    )
    status = "ran" if runs else "results_not_kept" if seen else "none_ran"
    return Canaries(status=status, requests_seen=seen, concepts=canary_recalls(runs))
