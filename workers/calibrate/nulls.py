"""Readings that tell nothing about a vector but its token, and what a real one must exceed; pure.

The same-token null of vector i: the candidates of another document's vector of the same position class,
each put before i's own read token, and of those the one that rebuilds i best. A pair that reads nothing but
the token, or chooses well among texts about something else, gets no further than this.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.decoder import PositionClass
from workers.nla.positions import POSITION_CLASSES

PARTNERS = 4
"""Other vectors whose readings are tried on each vector."""
LEAST_NULLS = 40
"""A class with fewer nulls has no threshold of its own."""
_QUANTILE = _CONFIDENCE = 0.95


class Pairs(NamedTuple):
    """Vectors, and whose readings are tried on them."""

    rows: NDArray[np.int64]
    partners: NDArray[np.int64]


def draw_pairs(
    documents: NDArray[np.int64], classes: Sequence[PositionClass], *, partners: int = PARTNERS
) -> Pairs:
    """Draw for every row up to `partners` rows of its class out of other documents (seeded)."""
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
    """Return for every class what 95% of its nulls do not exceed, and never less than 0; at least one null.

    `documents` are those of the vectors that the nulls were tried on.

    A class with few nulls takes the largest threshold of the others; where all have few, all are one.
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
    """Return an upper 95% bound of the 95th percentile: an order statistic; the largest of few values.

    Of m independent values it is the k-th, the smallest k such that at most k - 1 of them lie below the
    true percentile with probability 0.95. Rows of one document are alike, so m is not their number n but n
    over the design effect of the share that exceeds the percentile (Kish, Survey Sampling, 1965).
    """
    ranked = np.sort(values)
    m = max(int(len(values) / _design_effect(values > np.quantile(values, _QUANTILE), documents)), 1)
    ranks = np.arange(m + 1)
    logs = np.array([math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1) for k in ranks])
    below = np.cumsum(np.exp(logs + ranks * math.log(_QUANTILE) + (m - ranks) * math.log(1 - _QUANTILE)))
    k = min(int(np.searchsorted(below, _CONFIDENCE)) + 1, m)
    return float(ranked[math.ceil(k / m * len(values)) - 1])


def _design_effect(exceeds: NDArray[np.bool_], documents: NDArray[np.int64]) -> float:
    """Return by how much the variance of a share grows because rows come in documents; at least 1."""
    share = exceeds.mean()
    if share in {0.0, 1.0}:
        return 1.0
    _, group = np.unique(documents, return_inverse=True)
    excess = np.bincount(group, weights=exceeds - share)
    return max(float(np.square(excess).sum() / (len(exceeds) * share * (1 - share))), 1.0)
