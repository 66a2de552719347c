"""Coverage as answered: what was counted at every hop, what was lost, and what nobody looked at."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from pydantic import Field

from service.api.schemas.explanation import Answer
from service.store import coverage

LossKind = Literal["dropped", "dead_lettered", "unobservable"]
_LOSSES: Final[tuple[LossKind, ...]] = ("dropped", "dead_lettered", "unobservable")
_HOPS: Final = ("plugin", "sidecar", "worker")


class Ratio(Answer):
    """A ratio with its parts."""

    numerator: int = Field(examples=[118])
    denominator: int = Field(examples=[120])
    value: float | None = Field(description="Null when the denominator is 0.", examples=[0.983])

    @classmethod
    def of(cls, numerator: int, denominator: int) -> "Ratio":
        """Return the ratio; without a denominator it has no value."""
        value = numerator / denominator if denominator else None
        return cls(numerator=numerator, denominator=denominator, value=value)


class BlindSpot(Answer):
    """Something that these figures cannot see."""

    code: str = Field(description="Stable name.", examples=["prefix_cache"])
    detail: str


class Counts(Answer):
    """What one hop counted for one model within one step."""

    start: dt.datetime = Field(description="Start of the step, UTC.")
    hop: str = Field(examples=["plugin", "sidecar", "worker"])
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    counters: dict[str, int] = Field(examples=[{"rows_sampled": 120, "rows_handed_over": 120}])


class Loss(Answer):
    """How much was lost for one reason at one hop over the whole range."""

    hop: str = Field(examples=["sidecar"])
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    kind: LossKind = Field(
        description="`dropped`: a bound or an error; `dead_lettered`: set aside as unusable; "
        "`unobservable`: there was no activation to sample."
    )
    reason: str = Field(examples=["queue_full"])
    count: int = Field(examples=[2])


class ModelCoverage(Answer):
    """The way of one model's rows through all hops over the whole range."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    requests_sampled: Ratio = Field(description="Requests chosen for sampling, of requests seen.")
    rows_decoded: Ratio = Field(
        description="Activations decoded and stored, of activations sampled. Rows on the way across the "
        "edge of the range can push it above 1."
    )
    rows_dropped: int = Field(description="Dropped at any hop.")
    rows_dead_lettered: int = Field(description="Set aside as unusable.")
    rows_duplicate: int = Field(description="Delivered again, stored once.")
    rows_unsettled: int = Field(
        description="Sampled, less decoded, dropped and dead-lettered: on the way, lost with a killed "
        "process, or duplicates. Negative when more was settled than sampled within the range."
    )


class CoverageReport(Answer):
    """What was seen, sampled, dropped and decoded, and what was not looked at."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC, on a step's edge.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC, on a step's edge.")
    step: coverage.Step = Field(description="Length of one entry of `counts`.")
    models: list[ModelCoverage] = Field(description="Sums over the range, by model.")
    losses: list[Loss] = Field(description="Everything lost over the range, by hop, model and reason.")
    counts: list[Counts] = Field(description="Every counter, by step, hop and model.")
    blind_spots: list[BlindSpot]


ALWAYS_BLIND: Final = (
    BlindSpot(
        code="not_sampled", detail="Requests and positions that were not sampled: nothing is known of them."
    ),
    BlindSpot(
        code="prefix_cache",
        detail="Prompt tokens served from the prefix cache have no activations, so none could be sampled.",
    ),
    BlindSpot(
        code="parallel_samples",
        detail="Of a request with n > 1 only the first completion is read: all share one request id.",
    ),
    BlindSpot(
        code="not_expressible",
        detail="What a decoder cannot put into words. Fidelity shows that it works on a vector, not "
        "that a text is true.",
    ),
)
_COUNTING_BLIND: Final = BlindSpot(
    code="unsent_counts",
    detail="Counts that a process had not sent when it was killed; up to its last interval is missing.",
)


def report(wanted: coverage.Range, step: coverage.Step, counts: Sequence[coverage.Count]) -> CoverageReport:
    """Return the coverage statement for these counts."""
    return CoverageReport(
        start=wanted.start,
        end=wanted.end,
        step=step,
        models=_models(counts),
        losses=_losses(counts),
        counts=_steps(counts),
        blind_spots=[*_silent_hops(counts), *ALWAYS_BLIND, _COUNTING_BLIND],
    )


def _steps(counts: Iterable[coverage.Count]) -> list[Counts]:
    steps: defaultdict[tuple[dt.datetime, str, str], dict[str, int]] = defaultdict(dict)
    for count in counts:
        steps[count.start, count.hop, count.model][count.counter] = count.value
    return [
        Counts(start=start, hop=hop, model=model, counters=counters)
        for (start, hop, model), counters in sorted(steps.items())
    ]


def _losses(counts: Iterable[coverage.Count]) -> list[Loss]:
    sums: Counter[tuple[str, str, LossKind, str]] = Counter()
    for count in counts:
        for kind in _LOSSES:
            if count.counter.startswith(f"{kind}_"):
                sums[count.hop, count.model, kind, count.counter.removeprefix(f"{kind}_")] += count.value
    return [
        Loss(hop=hop, model=model, kind=kind, reason=reason, count=total)
        for (hop, model, kind, reason), total in sorted(sums.items())
    ]


def _models(counts: Iterable[coverage.Count]) -> list[ModelCoverage]:
    sums: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    lost: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for count in counts:
        sums[count.model][count.hop, count.counter] += count.value
    for loss in _losses(counts):
        lost[loss.model][loss.kind] += loss.count
    return [_model(model, sums[model], lost[model]) for model in sorted(sums)]


def _model(model: str, sums: Counter[tuple[str, str]], lost: Counter[str]) -> ModelCoverage:
    sampled, decoded = sums["plugin", "rows_sampled"], sums["worker", "rows_decoded"]
    return ModelCoverage(
        model=model,
        requests_sampled=Ratio.of(sums["plugin", "requests_sampled"], sums["plugin", "requests_seen"]),
        rows_decoded=Ratio.of(decoded, sampled),
        rows_dropped=lost["dropped"],
        rows_dead_lettered=lost["dead_lettered"],
        rows_duplicate=sums["worker", "rows_duplicate"],
        rows_unsettled=sampled - decoded - lost["dropped"] - lost["dead_lettered"],
    )


def _silent_hops(counts: Iterable[coverage.Count]) -> list[BlindSpot]:
    heard = {count.hop for count in counts}
    return [
        BlindSpot(
            code=f"silent_{hop}",
            detail=f"No {hop} reported in this range: either nothing came by, or nobody was looking.",
        )
        for hop in _HOPS
        if hop not in heard
    ]
