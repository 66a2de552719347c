"""Coverage as answered: what was counted at every hop, what was lost, and what nobody looked at."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.blind_spot import BlindSpot, blind_spots
from service.api.schemas.reconciliation import Reconciliation, reconciliations
from service.store import coverage

LossKind = Literal["dropped", "dead_lettered", "unobservable"]
_LOSSES: Final[tuple[LossKind, ...]] = ("dropped", "dead_lettered", "unobservable")


class Counts(Answer):
    """What one hop counted for one model and stratum within one step."""

    start: dt.datetime = Field(description="Start of the step, UTC.")
    hop: str = Field(examples=["plugin", "sidecar", "worker"])
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    stratum: str = Field(examples=["uniform"])
    counters: dict[str, int] = Field(examples=[{"rows_sampled": 120, "rows_handed_over": 120}])


class Loss(Answer):
    """How much was lost for one reason at one hop over the whole range."""

    hop: str = Field(examples=["plugin"])
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    stratum: str = Field(
        description="`unknown` for rows that no longer told theirs: invalid and trimmed ones.",
        examples=["uniform"],
    )
    kind: LossKind = Field(
        description="`dropped`: a bound or an error; `dead_lettered`: set aside as unusable; "
        "`unobservable`: there was no activation to sample."
    )
    reason: str = Field(examples=["queue_full"])
    count: int = Field(examples=[2])


class Sums(Answer):
    """The way of rows through all hops over the whole range."""

    requests_sampled: Ratio = Field(description="Requests chosen for sampling, of requests seen.")
    rows_decoded: Ratio = Field(
        description="Activations decoded and stored, of activations sampled, whatever became of the others."
    )
    rows_thinned: int = Field(
        description="Left out by chance, with a known probability, to keep within a budget. No loss: the "
        "probabilities of the others make up for them."
    )
    rows_dropped: int = Field(description="Dropped at any hop.")
    rows_dead_lettered: int = Field(description="Set aside as unusable.")
    rows_duplicate: int = Field(description="Of a sample that was stored before.")
    rows_unsettled: int = Field(
        description="Sampled and none of the above: on its way, or lost with a killed process; "
        "`reconciliation` tells where. Negative in strata whose rows were dropped under another one."
    )


class StratumCoverage(Sums):
    """The sums of requests that are sampled by one rule, with denominators of their own."""

    stratum: str = Field(
        description="`uniform`: sampled by a hash of the request's id or trace; `opt_in`: the client "
        "asked, always sampled; `opt_out`: the client asked not to be, never sampled; `unknown`: rows "
        "that no longer told.",
        examples=["uniform"],
    )


class ModelCoverage(Sums):
    """The sums of one model over all strata, and by stratum."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    strata: list[StratumCoverage] = Field(description="Those that counted anything, by name.")


class CoverageReport(Answer):
    """What was seen, sampled, dropped and decoded, and what was not looked at."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC, on a step's edge.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC, on a step's edge.")
    step: coverage.Step = Field(description="Length of one entry of `counts`.")
    models: list[ModelCoverage] = Field(description="Sums over the range, by model.")
    reconciliation: list[Reconciliation] = Field(
        description="Whether what came into each hop came out of it, by model and stratum."
    )
    losses: list[Loss] = Field(
        description="Everything lost over the range, by hop, model, stratum and reason."
    )
    counts: list[Counts] = Field(description="Every counter, by step, hop, model and stratum.")
    blind_spots: list[BlindSpot]


def report(
    wanted: coverage.Range,
    step: coverage.Step,
    counts: Sequence[coverage.Count],
    settled_before: Mapping[str, dt.datetime],
    stratum: coverage.Stratum | None = None,
) -> CoverageReport:
    """Return the coverage statement for these counts, which are of all strata.

    ``stratum`` narrows every list that names strata; what is a total stays one.
    """
    narrowed = [count for count in counts if stratum in {None, count.stratum}]
    return CoverageReport(
        start=wanted.start,
        end=wanted.end,
        step=step,
        models=_models(counts, stratum),
        reconciliation=reconciliations(counts, settled_before, stratum),
        losses=_losses(narrowed),
        counts=_steps(narrowed),
        blind_spots=blind_spots(counts),
    )


def _steps(counts: Iterable[coverage.Count]) -> list[Counts]:
    steps: defaultdict[tuple[dt.datetime, str, str, str], dict[str, int]] = defaultdict(dict)
    for count in counts:
        steps[count.start, count.hop, count.model, count.stratum][count.counter] = count.value
    return [
        Counts(start=start, hop=hop, model=model, stratum=stratum, counters=counters)
        for (start, hop, model, stratum), counters in sorted(steps.items())
    ]


def _losses(counts: Iterable[coverage.Count]) -> list[Loss]:
    sums: Counter[tuple[str, str, str, LossKind, str]] = Counter()
    for count in counts:
        for kind in _LOSSES:
            if count.counter.startswith(f"{kind}_"):
                reason = count.counter.removeprefix(f"{kind}_")
                sums[count.hop, count.model, count.stratum, kind, reason] += count.value
    return [
        Loss(hop=hop, model=model, stratum=stratum, kind=kind, reason=reason, count=total)
        for (hop, model, stratum, kind, reason), total in sorted(sums.items())
        if total
    ]


def _models(counts: Iterable[coverage.Count], stratum: coverage.Stratum | None) -> list[ModelCoverage]:
    by_model: defaultdict[str, list[coverage.Count]] = defaultdict(list)
    for count in counts:
        by_model[count.model].append(count)
    return [
        ModelCoverage(model=model, strata=_strata(of_model, stratum), **_sums(of_model))
        for model, of_model in sorted(by_model.items())
    ]


def _strata(counts: Iterable[coverage.Count], stratum: coverage.Stratum | None) -> list[StratumCoverage]:
    by_stratum: defaultdict[str, list[coverage.Count]] = defaultdict(list)
    for count in counts:
        by_stratum[count.stratum].append(count)
    return [
        StratumCoverage(stratum=name, **_sums(of_stratum))
        for name, of_stratum in sorted(by_stratum.items())
        if stratum in {None, name}
    ]


def _sums(counts: Sequence[coverage.Count]) -> dict[str, Any]:
    sums: Counter[tuple[str, str]] = Counter()
    for count in counts:
        sums[count.hop, count.counter] += count.value
    lost: Counter[LossKind] = Counter()
    for loss in _losses(counts):
        lost[loss.kind] += loss.count
    sampled, decoded = sums["plugin", "rows_sampled"], sums["worker", "rows_decoded"]
    # The sidecar counts what it trims, also what a worker was reading just then.
    dropped = lost["dropped"] - sums["worker", "rows_trimmed_but_read"]
    gone = (sums["sidecar", "thinned"], dropped, lost["dead_lettered"], sums["worker", "rows_duplicate"])
    return {
        "requests_sampled": Ratio.of(sums["plugin", "requests_sampled"], sums["plugin", "requests_seen"]),
        "rows_decoded": Ratio.of(decoded, sampled),
        "rows_thinned": gone[0],
        "rows_dropped": dropped,
        "rows_dead_lettered": lost["dead_lettered"],
        "rows_duplicate": sums["worker", "rows_duplicate"],
        "rows_unsettled": sampled - decoded - sum(gone),
    }
