"""How much shares and means differ between two windows of traffic. Pure.

The interval of a difference is the hybrid of the two shares' own intervals (Newcombe 1998, "Interval
estimation for the difference between independent proportions", method 10), which are at effective sample
sizes here. The two-sided test is that interval turned round: its p-value is the smallest error at which the
interval leaves out 0. Tests are adjusted together for the false discovery rate (Benjamini and Hochberg
1995).
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]  # no types upstream

from service.prevalence.estimate import CONFIDENCE, FittedShare

FALSE_DISCOVERY_RATE: Final = 0.05
SMALLEST_P_VALUE: Final = 1e-12
"""What smaller p-values are told as: the tails are not known so far out."""
_LARGEST_ERROR: Final = 0.999  # at 1 an interval is a point
_ROUNDING: Final = 1e-12  # of a sum of squares: smaller differences are zero up to rounding
_STEPS: Final = 50  # of bisection, each of which halves the logarithm's range


class Change(NamedTuple):
    """A difference of two shares, after less before."""

    difference: float
    lower: float
    upper: float
    p_value: float  # two-sided, in [SMALLEST_P_VALUE, 1]


class Ratio(NamedTuple):
    """Sums over the requests of a window, of their rows' weights w and weighted values y."""

    requests: int
    w: float
    y: float
    ww: float
    wy: float
    yy: float


class Mean(NamedTuple):
    """A weighted mean with its interval, which nothing is known of with fewer than two requests."""

    estimate: float
    lower: float | None
    upper: float | None


def estimate_change(
    before: FittedShare | None, after: FittedShare | None, confidence: float = CONFIDENCE
) -> Change | None:
    """Return the difference with its interval and its test; None where either side has no request."""
    if before is None or after is None:
        return None
    lower, upper = _bounds(before, after, 1.0 - confidence)
    return Change(after.estimate - before.estimate, lower, upper, _p_value(before, after))


def adjusted(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Return, of p-values (n,), the smallest false discovery rate at which each is a discovery; (n,)."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    found = np.empty_like(values)
    found[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return found


def mean_of(sums: Ratio, confidence: float = CONFIDENCE) -> Mean | None:
    """Return the weighted mean of values up to 1; None without any request.

    Requests are the clusters of the linearised variance, and the interval is Student's.
    """
    if not sums.requests:
        return None
    mean = sums.y / sums.w
    if sums.requests == 1:
        return Mean(mean, None, None)
    half = -float(special.stdtrit(sums.requests - 1, (1.0 - confidence) / 2.0)) * math.sqrt(_variance(sums))
    return Mean(mean, mean - half, min(1.0, mean + half))


def share_of(sums: Ratio, rows: int) -> FittedShare | None:
    """Return the weighted share of rows of which y is w, the others' being 0; None without any request."""
    if not sums.requests:
        return None
    share, variance = sums.y / sums.w, _variance(sums)
    if 0.0 < share < 1.0 and variance > 0.0:
        return FittedShare(share, min(share * (1.0 - share) / variance, float(rows)), sums.requests - 1.0)
    # The sample has no variance: Kish's effective size of the requests' weights takes its place.
    return FittedShare(share, sums.w**2 / sums.ww, math.inf)


def _variance(sums: Ratio) -> float:
    mean = sums.y / sums.w
    squares = sums.yy - 2.0 * mean * sums.wy + mean * mean * sums.ww
    if squares <= _ROUNDING * sums.yy:
        return 0.0
    return squares * sums.requests / max(1, sums.requests - 1) / sums.w**2


def _bounds(before: FittedShare, after: FittedShare, error: float) -> tuple[float, float]:
    difference = after.estimate - before.estimate
    (low_before, high_before), (low_after, high_after) = (
        one.interval(error / 2.0) for one in (before, after)
    )
    down = math.hypot(after.estimate - low_after, high_before - before.estimate)
    up = math.hypot(high_after - after.estimate, before.estimate - low_before)
    return max(-1.0, difference - down), min(1.0, difference + up)


def _p_value(before: FittedShare, after: FittedShare) -> float:
    low, high = math.log(SMALLEST_P_VALUE), math.log(_LARGEST_ERROR)
    if not _leaves_out_zero(before, after, high):
        return 1.0
    if _leaves_out_zero(before, after, low):
        return SMALLEST_P_VALUE
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if _leaves_out_zero(before, after, middle):
            high = middle
        else:
            low = middle
    return math.exp(high)


def _leaves_out_zero(before: FittedShare, after: FittedShare, log_error: float) -> bool:
    lower, upper = _bounds(before, after, math.exp(log_error))
    return lower > 0.0 or upper < 0.0
