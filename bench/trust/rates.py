"""Recall at a stated false-positive rate, per incident, with intervals. Pure."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no types upstream

CONFIDENCE = 0.95
Scores = NDArray[np.float64]


class Rate(NamedTuple):
    """A share of incidents with its Clopper-Pearson interval."""

    share: float
    low: float
    high: float
    n: int

    @property
    def found(self) -> int:
        """The numerator."""
        return round(self.share * self.n) if self.n else 0


def rate(hits: NDArray[np.bool_]) -> Rate:
    """Return the share of hits, (n,), with its exact 95% interval; 0 to 1 for n = 0."""
    n, found = len(hits), int(np.count_nonzero(hits))
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(stats.beta.ppf(tail, found, n - found + 1)) if found else 0.0
    high = float(stats.beta.isf(tail, found + 1, n - found)) if found < n else 1.0
    return Rate(found / n if n else float("nan"), low, high, n)


def p_values(scores: Scores, benign: Scores) -> Scores:
    """Return conformal p-values, (n,): the share of benign scores at or above each, with itself among them.

    The smallest is 1 / (len(benign) + 1) (Vovk et al. 2005).
    """
    ranked = np.sort(benign)
    above = len(ranked) - np.searchsorted(ranked, scores, side="left")
    return np.asarray((1.0 + above) / (1.0 + len(ranked)), np.float64)


def benign_needed(false_positive_rate: float) -> int:
    """Return how many benign incidents a p-value as small as the rate needs."""
    return int(np.ceil(1.0 / false_positive_rate - 1e-9)) - 1


def auroc(positive: Scores, benign: Scores) -> float:
    """Return the chance that a positive scores above a benign incident, ties counted half."""
    ranks = stats.rankdata(np.concatenate([positive, benign]))
    mine = float(ranks[: len(positive)].sum()) - len(positive) * (len(positive) + 1) / 2
    return mine / (len(positive) * len(benign))


def agree(of_positions: Scores, required: int) -> Scores:
    """Return each incident's score, (n,): the ``required``-th highest of its positions, (n, positions).

    Thresholding that score asks for as many positions above the threshold, as the flag rule does.
    """
    return np.asarray(np.sort(of_positions, axis=1)[:, -required], np.float64)


def fuse(*p_values_of: Scores) -> Scores:
    """Return the negative logarithm of the Cauchy combination of p-values, (n,): higher is stranger.

    The combination holds whatever the dependence, up to small p-values (Liu and Xie 2020).
    """
    statistic = np.mean([np.tan((0.5 - np.clip(p, 1e-9, 1 - 1e-9)) * np.pi) for p in p_values_of], axis=0)
    return np.asarray(-np.log(np.clip(0.5 - np.arctan(statistic) / np.pi, 1e-12, 1.0)), np.float64)
