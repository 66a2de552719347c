"""False-positive rates per request: thresholds for a target rate, and the limits of a measured one. Pure.

A rule that flags a request when its score exceeds a threshold is calibrated on the scores of n benign
requests that are exchangeable with later benign ones. Of a threshold that m of the n exceed, the true rate
is at most the Clopper-Pearson limit for m of n, with 95% confidence: an upper tolerance limit (Wilks,
1941). The threshold for a target rate is the lowest whose limit is not above the target. So the rate of
one calibration is at most the target with that confidence, not only on average over calibrations, as the
conformal threshold (Vovk et al., 2005) would be. Ties only lower the true rate.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
"""Of every upper limit, one-sided."""
_ROUNDING: Final = 1e-9
"""A limit that is equal to the rate may come out a little above it."""


class Threshold(NamedTuple):
    """A request is flagged when its score exceeds ``above``."""

    above: float
    allowed: int
    """Number of benign scores that may exceed it; ties can leave fewer."""


def threshold_for(scores: NDArray[np.floating[Any]], rate: float) -> Threshold:
    """Return the lowest threshold for the rate, from the scores of benign requests, (n,).

    Raises ValueError below `requests_needed`.
    """
    n = len(scores)
    if n < requests_needed(rate):
        raise ValueError(
            f"a rate of at most {rate:g} with {CONFIDENCE:.0%} confidence needs {requests_needed(rate)}"
            f" requests or more, there are {n}"
        )
    most = min(math.ceil(rate * n), n - 1)  # the limit for a share is above that share
    allowed = int((_limits(np.arange(most + 1), n) <= rate + _ROUNDING).sum()) - 1
    return Threshold(float(np.sort(scores)[n - 1 - allowed]), allowed)


def requests_needed(rate: float) -> int:
    """Return the least number of benign requests, none flagged, whose upper limit is this rate.

    The limit for none of n solves (1 - rate)^n = 1 - CONFIDENCE; about 3 / n.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate) - _ROUNDING)


def rank_needed(rate: float) -> int:
    """Return the least number of benign requests of which the most extreme rank is at most the rate.

    A conformal p-value is no smaller than 1 / (n + 1).
    """
    return math.ceil(1 / rate - _ROUNDING) - 1


def upper_limit(incidents: int, requests: int) -> float:
    """Return the one-sided upper limit of Clopper and Pearson (1934) for a share of requests."""
    if incidents >= requests:
        return 1.0
    return float(_limits(np.array([incidents]), requests)[0])


def _limits(incidents: NDArray[np.int64], requests: int) -> NDArray[np.float64]:
    """Return the upper limit of each count, (n,), all below the number of requests."""
    from scipy.stats import beta  # type: ignore[import-untyped]  # has no types

    return np.asarray(beta.ppf(CONFIDENCE, incidents + 1, requests - incidents), np.float64)
