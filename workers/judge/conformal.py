"""Conformal p-values that hold for the calibration set in force, and not on average over such sets. Pure.

With r of n benign requests as extreme, (r + 1) / (n + 1) is a p-value. It is super-uniform over all draws
of the calibration set; but there is one such set, and every request of a deployment is ranked by it. The
Simes adjustment of Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values"
(arXiv 2104.08279, section 3), makes it larger, so that with probability `CONFIDENCE` over the set all
p-values at once are super-uniform given the set.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.9
"""Probability over calibration sets that p-values are super-uniform given the set."""


def p_values(n: int) -> NDArray[np.float64]:
    """Return the p-value of each number of benign requests that are as extreme, 0 to n: (n + 1,)."""
    ranks = np.arange(n + 1)
    marginal = (ranks + 1.0) / (n + 1.0)
    half = n // 2
    if half < 1:
        return np.ones(n + 1)
    logs = np.concatenate([[0.0], np.log(np.arange(1, n + 1)).cumsum()])
    milder = n - ranks[: n - half + 1]  # at least half: for fewer the adjustment is 1
    products = (logs[milder] - logs[milder - half]) - (logs[n] - logs[n - half])
    adjusted = np.ones(n + 1)
    adjusted[: len(milder)] = -np.expm1((math.log1p(-CONFIDENCE) + products) / half)
    return np.asarray(np.clip(np.maximum(adjusted, marginal), 0.0, 1.0), np.float64)


def requests_needed(p_value: float) -> int:
    """Return how many benign requests it takes for a p-value as small as this one."""
    return 2 * math.ceil(math.log1p(-CONFIDENCE) / math.log1p(-p_value) - 1e-9)
