"""The same-token null, and the thresholds that it sets; pure.

The null of vector i takes the candidates of another document's vector of the same position class, rebuilds
each with i's read token, and keeps the one that fits i best. A pair that conveys only the token, or only
profits from choosing the best of several texts, scores no higher than this null.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.decoder import PositionClass
from workers.nla.positions import POSITION_CLASSES

PARTNERS = 4
"""Number of other vectors whose readings are paired with each vector."""
LEAST_NULLS = 40
"""Nulls that a position class needs for its own threshold."""
_QUANTILE = _CONFIDENCE = 0.95


class Pairs(NamedTuple):
    """Row numbers of vectors, and of the vectors whose readings are paired with them; both (pairs,)."""

    rows: NDArray[np.int64]
    partners: NDArray[np.int64]


def draw_pairs(
    documents: NDArray[np.int64], classes: Sequence[PositionClass], *, partners: int = PARTNERS
) -> Pairs:
    """Draw for every row up to `partners` rows of the same class from other documents (seeded)."""
    rng = np.random.default_rng(0)
    kinds = np.asarray(classes)
    rows, others = [], []
    for row in range(len(documents)):
        eligible = np.flatnonzero((kinds == kinds[row]) & (documents != documents[row]))
        drawn = rng.choice(eligible, min(partners, len(eligible)), replace=False)
        rows += [row] * len(drawn)
        others += drawn.tolist()
    return Pairs(np.array(rows, np.int64), np.array(others, np.int64))


def thresholds(
    scores: NDArray[np.float64], classes: Sequence[str] | NDArray[np.str_], documents: NDArray[np.int64]
) -> dict[PositionClass, float]:
    """Return an upper bound of the 95th percentile of the null scores by class, at least 0.

    `scores`, `classes` and `documents` are (nulls,), not empty; `documents` numbers each null's document.
    A class with fewer than LEAST_NULLS nulls takes the largest threshold of the other classes. If every
    class has fewer, all classes are pooled.
    """
    kinds = np.asarray(classes)
    own: dict[PositionClass, float] = {
        kind: upper_percentile(scores[kinds == kind], documents[kinds == kind])
        for kind in POSITION_CLASSES
        if (kinds == kind).sum() >= LEAST_NULLS
    }
    largest = max(own.values()) if own else upper_percentile(scores, documents)
    return {kind: max(own.get(kind, largest), 0.0) for kind in POSITION_CLASSES}


def upper_percentile(values: NDArray[np.float64], documents: NDArray[np.int64]) -> float:
    """Return an upper 95% confidence bound of the 95th percentile, an order statistic of `values` (n,).

    For m independent values the bound is the k-th smallest, where k is the smallest number for which at
    most k - 1 values lie below the true percentile with probability 0.95; for small m it is the largest
    value. Rows of one document are correlated, so m is n divided by the design effect of the share above
    the percentile (Kish, Survey Sampling, 1965).
    """
    ranked = np.sort(values)
    m = max(int(len(values) / _design_effect(values > np.quantile(values, _QUANTILE), documents)), 1)
    ranks = np.arange(m + 1)
    logs = np.array([math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1) for k in ranks])
    below = np.cumsum(np.exp(logs + ranks * math.log(_QUANTILE) + (m - ranks) * math.log(1 - _QUANTILE)))
    k = min(int(np.searchsorted(below, _CONFIDENCE)) + 1, m)
    return float(ranked[math.ceil(k / m * len(values)) - 1])


def _design_effect(exceeds: NDArray[np.bool_], documents: NDArray[np.int64]) -> float:
    """Return the factor by which clustering in documents inflates the variance of a share; at least 1."""
    share = exceeds.mean()
    if share in {0.0, 1.0}:
        return 1.0
    _, group = np.unique(documents, return_inverse=True)
    excess = np.bincount(group, weights=exceeds - share)
    return max(float(np.square(excess).sum() / (len(exceeds) * share * (1 - share))), 1.0)
