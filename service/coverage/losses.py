"""Losses by reason, and sums of requests and rows over all hops."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from service.coverage.count import Count
from subtext_sidecar.contract.counters import (
    Hop,
    LossKind,
    PluginCounter,
    SidecarCounter,
    Stratum,
    WorkerCounter,
    loss_of,
)


@dataclass(frozen=True, slots=True)
class Loss:
    """The count of one kind and reason of loss at one hop."""

    hop: str
    model: str
    stratum: str
    kind: LossKind
    reason: str
    count: int


class Share(NamedTuple):
    """A ratio of counts."""

    numerator: int
    denominator: int

    @property
    def value(self) -> float | None:
        """The ratio, or None when the denominator is 0."""
        return self.numerator / self.denominator if self.denominator else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """The outcome of requests and rows, for one model or one of its strata."""

    requests_sampled: Share  # of requests seen
    rows_decoded: Share  # of rows sampled
    rows_thinned: int
    rows_dropped: int
    rows_dead_lettered: int
    rows_duplicate: int
    rows_unsettled: int  # sampled rows without any outcome above


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumSums(Sums):
    """The sums of one stratum."""

    stratum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSums(Sums):
    """The sums of one model over all strata of traffic, which canaries are not, and by stratum."""

    model: str
    strata: list[StratumSums]


def losses(counts: Iterable[Count]) -> list[Loss]:
    """Return the losses summed over all steps, sorted by the fields of `Loss`."""
    sums: Counter[tuple[str, str, str, LossKind, str]] = Counter()
    for count in counts:
        if lost := loss_of(count.counter):
            sums[count.hop, count.model, count.stratum, lost.kind, lost.reason] += count.value
    return [Loss(*what, total) for what, total in sorted(sums.items()) if total]


def sums_by_model(counts: Iterable[Count], stratum: Stratum | None = None) -> list[ModelSums]:
    """Return every model's sums; ``stratum`` restricts the list of strata but not the totals."""
    by_model: defaultdict[str, list[Count]] = defaultdict(list)
    for count in counts:
        by_model[count.model].append(count)
    return [
        ModelSums(
            model=model,
            strata=_strata(of_model, stratum),
            **asdict(traffic_sums(of_model)),
        )
        for model, of_model in sorted(by_model.items())
    ]


def traffic_sums(counts: Iterable[Count]) -> Sums:
    """Return the sums of all strata of traffic together; canaries are none."""
    return _sums([count for count in counts if count.stratum != Stratum.CANARY])


def _strata(counts: Iterable[Count], stratum: Stratum | None) -> list[StratumSums]:
    by_stratum: defaultdict[str, list[Count]] = defaultdict(list)
    for count in counts:
        by_stratum[count.stratum].append(count)
    return [
        StratumSums(stratum=name, **asdict(_sums(of_stratum)))
        for name, of_stratum in sorted(by_stratum.items())
        if stratum in {None, name}
    ]


def _sums(counts: Sequence[Count]) -> Sums:
    sums: Counter[tuple[str, str]] = Counter()
    for count in counts:
        sums[count.hop, count.counter] += count.value
    lost: Counter[LossKind] = Counter()
    for loss in losses(counts):
        lost[loss.kind] += loss.count
    sampled = sums[Hop.PLUGIN, PluginCounter.ROWS_SAMPLED]
    decoded = sums[Hop.WORKER, WorkerCounter.ROWS_DECODED]
    thinned = sums[Hop.SIDECAR, SidecarCounter.THINNED]
    duplicate = sums[Hop.WORKER, WorkerCounter.ROWS_DUPLICATE]
    # The sidecar counts every row that it trims, including rows that a worker is reading at that moment.
    dropped = lost[LossKind.DROPPED] - sums[Hop.WORKER, WorkerCounter.ROWS_TRIMMED_BUT_READ]
    dead_lettered = lost[LossKind.DEAD_LETTERED]
    return Sums(
        requests_sampled=Share(
            sums[Hop.PLUGIN, PluginCounter.REQUESTS_SAMPLED], sums[Hop.PLUGIN, PluginCounter.REQUESTS_SEEN]
        ),
        rows_decoded=Share(decoded, sampled),
        rows_thinned=thinned,
        rows_dropped=dropped,
        rows_dead_lettered=dead_lettered,
        rows_duplicate=duplicate,
        rows_unsettled=sampled - decoded - thinned - dropped - dead_lettered - duplicate,
    )
