"""Statistics of the benchmarks: percentiles, ratios paired by round, intervals and bars. Pure."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

_RESAMPLES: Final = 10_000
_POOLED_RESAMPLES: Final = 400  # fewer, because each sorts all samples of all rounds
_CONFIDENCE: Final = 0.95


class Estimate(NamedTuple):
    """A median over rounds with its 95% bootstrap interval."""

    median: float
    low: float
    high: float


class Bar(NamedTuple):
    """A lower (``at_least``) or upper (``at_most``) limit for a figure."""

    kind: Literal["at_least", "at_most"]
    value: float


class Verdict(NamedTuple):
    """The comparison of an estimate with its bar."""

    is_passed: bool  # by the median
    is_open: bool  # the interval contains the bar, so more rounds could change the verdict


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, interpolated linearly; raises ValueError without values."""
    if not values:
        raise ValueError("percentile of no values: the load made no sample")
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))


def paired_ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return value / baseline per round; both must have one entry per round."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the median of one value per round, with the 95% percentile bootstrap interval over rounds."""
    rounds = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(rounds), size=(_RESAMPLES, len(rounds)))
    medians = np.median(rounds[picks], axis=1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(medians, (tail, 1 - tail))
    return Estimate(median=float(np.median(rounds)), low=float(low), high=float(high))


def pooled_percentile_ratio(
    values: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], percent: float, *, seed: int = 0
) -> Estimate:
    """Return the ratio of percentiles of all rounds' samples, with a 95% bootstrap interval over rounds.

    A single round has few samples above its 99th percentile; all rounds together have enough. Pooling gives
    up the pairing within rounds, but a slow round affects both percentiles.
    """
    mine, base = ([np.asarray(one, dtype=np.float64) for one in rounds] for rounds in (values, baseline))

    def ratio(picks: Sequence[int]) -> float:
        tops, bottoms = (np.concatenate([rounds[pick] for pick in picks]) for rounds in (mine, base))
        return float(np.percentile(tops, percent) / np.percentile(bottoms, percent))

    resamples = np.random.default_rng(seed).integers(0, len(mine), size=(_POOLED_RESAMPLES, len(mine)))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile([ratio(picks.tolist()) for picks in resamples], (tail, 1 - tail))
    return Estimate(median=ratio(range(len(mine))), low=float(low), high=float(high))


def judge(bar: Bar, figure: Estimate) -> Verdict:
    """Return whether the median passes the bar, and whether the interval contains the bar."""
    passed = figure.median >= bar.value if bar.kind == "at_least" else figure.median <= bar.value
    return Verdict(is_passed=passed, is_open=figure.low <= bar.value <= figure.high)
