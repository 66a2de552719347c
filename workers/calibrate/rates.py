"""False-positive rates per request: thresholds for a target rate, and the limits of a measured one. Pure.

A rule that flags a request when its score exceeds a threshold is calibrated on the scores of n benign
requests that are exchangeable with later benign ones. Conformal prediction (Vovk et al., 2005): with
p = (1 + #{benign scores >= score}) / (n + 1), a benign request has p <= r with probability at most r. So
the threshold for the rate r is the score that floor(r (n + 1)) - 1 of the n exceed, and needs
n >= 1 / r - 1.

That bounds the rate over calibrations. Of one calibration, whose threshold m of n exceed, the true rate is
at most the Clopper-Pearson limit for m of n, with the stated confidence: an upper tolerance limit (Wilks,
1941). Ties only lower the true rate.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
"""Of every upper limit, one-sided."""
_ROUNDING: Final = 1e-9
"""0.01 * 700 is a little less than 7."""


class Threshold(NamedTuple):
    """A request is flagged when its score exceeds ``above``."""

    above: float
    allowed: int
    """Number of benign scores that may exceed it; ties can leave fewer."""


def threshold_for(scores: NDArray[np.floating[Any]], rate: float) -> Threshold:
    """Return the lowest threshold for the rate, from the scores of benign requests, (n,).

    Raises ValueError below `requests_needed`.
    """
    allowed = math.floor(rate * (len(scores) + 1) + _ROUNDING) - 1
    if allowed < 0:
        raise ValueError(
            f"a rate of {rate:g} needs 1 / rate - 1 = {requests_needed(rate)} requests or more, there are"
            f" {len(scores)}"
        )
    return Threshold(float(np.sort(scores)[len(scores) - 1 - allowed]), allowed)


def requests_needed(rate: float) -> int:
    """Return the least number of benign requests that a threshold for the rate can stand on."""
    return math.ceil(1 / rate - 1 - _ROUNDING)


def requests_needed_for_limit(limit: float) -> int:
    """Return the least number of benign requests, none flagged, whose upper limit is this one.

    The limit for none of n solves (1 - limit)^n = 1 - CONFIDENCE; about 3 / n.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-limit) - _ROUNDING)


def upper_limit(incidents: int, requests: int) -> float:
    """Return the one-sided upper limit of Clopper and Pearson (1934) for a share of requests."""
    from scipy.stats import beta  # type: ignore[import-untyped]  # has no types

    if incidents >= requests:
        return 1.0
    return float(beta.ppf(CONFIDENCE, incidents + 1, requests - incidents))
