"""Which requests of a window are anomalies at a stated false discovery rate. Pure.

Benjamini and Hochberg's step-up procedure (1995). Conformal p-values that rank against one calibration set
depend on each other positively (PRDS), under which the procedure keeps its rate: Bates, Candès, Lei, Romano
and Sesia, "Testing for outliers with conformal p-values", arXiv 2104.08279, theorem 2. Rows of a request
depend on each other in ways that nobody knows, so a test stands for a request and never for a row.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

FDR: Final = 0.1
"""The share of false ones among all discoveries of a window that is accepted on average."""


class RequestTest(NamedTuple):
    """The p-value of one request, with what it stands on."""

    capture_id: str
    p_value: float
    """Conformal, of the whole request; in (0, 1]."""
    calibration_n: int
    """Number of benign requests that it was ranked among; they set how small a p-value can be."""
    rows: int
    """Number of the request's rows that it was told from."""


class Discovery(NamedTuple):
    """A request that is an anomaly at a false discovery rate."""

    test: RequestTest
    fdr: float
    """Expected share of false ones among the discoveries of the window, at most."""
    threshold: float
    """Largest p-value that was a discovery in this window."""
    requests: int
    """Number of requests tested in this window."""


def discover(tests: Sequence[RequestTest], *, fdr: float = FDR) -> list[Discovery]:
    """Return the discoveries of one window, likeliest first; raises ValueError for an unusable rate.

    Every request of the window that has a p-value must be among the tests, found or not: the rate holds for
    all of them together. A request must not be tested in two windows.
    """
    if not 0.0 < fdr < 1.0:
        raise ValueError(f"fdr: is {fdr}, must be between 0 and 1")
    captures = {test.capture_id for test in tests}
    if len(captures) < len(tests):
        raise ValueError("tests: a request occurs twice; give one test a request")
    p_values = np.array([test.p_value for test in tests], np.float64)
    threshold = bh_threshold(p_values, fdr)
    found = sorted((test for test in tests if test.p_value <= threshold), key=lambda test: test.p_value)
    return [Discovery(test, fdr, threshold, len(tests)) for test in found]


def bh_threshold(p_values: NDArray[np.floating[Any]], fdr: float) -> float:
    """Return the largest p-value (n,) that Benjamini and Hochberg's procedure rejects; 0 for none."""
    if not len(p_values):
        return 0.0
    if not ((p_values > 0.0) & (p_values <= 1.0)).all():
        raise ValueError("p_values: must be in (0, 1]")
    ranked = np.sort(p_values)
    is_below = ranked <= fdr * np.arange(1, len(ranked) + 1) / len(ranked)
    return float(ranked[np.flatnonzero(is_below)[-1]]) if is_below.any() else 0.0


def q_values(p_values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return for each p-value (n,) the smallest rate at which the procedure rejects it, at most 1."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    found = np.empty(len(p_values))
    # A larger p-value may be rejected at a smaller rate, and takes all smaller ones with it.
    found[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(found, 1.0)


def least_discoveries(requests: int, floor: float, *, fdr: float = FDR) -> int:
    """Return how many requests of a window must be extreme before any of them can be a discovery.

    No p-value is below ``floor``, and k discoveries among the window's requests need p-values of at most
    fdr * k / requests.
    """
    return max(1, math.ceil(requests * floor / fdr - 1e-9))
