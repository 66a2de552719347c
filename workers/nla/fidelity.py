"""Fidelity of rebuilt vectors: cosine, unit MSE and FVE; pure numpy.

FVE compares a rebuilt vector with the mean predictor, on unit vectors:
`1 - |u - u_hat|^2 / baseline` with `baseline = mean |u - mean(u)|^2 = 1 - |mean(u)|^2`.
FVE is 1 for a perfect reconstruction and 0 for the mean. FVE beyond the token replaces the mean predictor
by the read token's mean, because the record gives the token anyway. High fidelity means that the decoder
works on the vector, not that a claim in the text is true.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]
_TINY = 1e-12
_Z95 = 1.959964
_LEAST_OPEN = 1e-3
_WORST = -1.0


class Interval(NamedTuple):
    """An estimate with its 95% interval and sample size."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """Return the JSON form used in cards and calibrations."""
        return {
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
            "n": self.n,
        }


def to_unit(vectors: Vectors | Values) -> Values:
    """Scale every row of (..., d) to norm 1, in float64; zero rows stay zero."""
    rows = np.asarray(vectors, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY))


def cosine(vectors: Vectors, rebuilt: Vectors) -> Values:
    """Return the cosine of every row and its rebuilt row, (n,)."""
    return np.asarray((to_unit(vectors) * to_unit(rebuilt)).sum(axis=-1))


def unit_mse(vectors: Vectors, rebuilt: Vectors | Values) -> Values:
    """Return the squared distance of unit rows, `2 (1 - cosine)`, 0 to 4: the official training loss."""
    return np.asarray(np.square(to_unit(vectors) - to_unit(rebuilt)).sum(axis=-1))


def mean_direction(vectors: Vectors) -> Values:
    """Return the mean of the unit rows, (d,): the prediction without any information."""
    return np.asarray(to_unit(vectors).mean(axis=0))


def fve_baseline(vectors: Vectors) -> float:
    """Return the mean squared distance of unit rows from their mean; ValueError without two directions."""
    baseline = float(1.0 - np.square(mean_direction(vectors)).sum())
    if len(vectors) < 2 or baseline <= _TINY:  # noqa: PLR2004 - a spread needs two
        raise ValueError("vectors: need at least 2 with different directions to measure a baseline")
    return baseline


def fve(vectors: Vectors, rebuilt: Vectors | Values, *, baseline: float) -> Values:
    """Return every row's fraction of variance explained, (n,): 1 is perfect, 0 as good as the mean."""
    return 1.0 - unit_mse(vectors, rebuilt) / baseline


def fve_beyond_token(fves: Values, fves_of_token_mean: Values) -> Values:
    """Return `1 - (1 - fve) / (1 - fve of the token's mean)`, (n,), but at least -1.

    The denominator is near 0 where the token's mean is nearly right. Without the bound such rows would
    dominate every average.
    """
    left = (1.0 - fves) / np.maximum(1.0 - fves_of_token_mean, _LEAST_OPEN)
    return np.asarray(np.maximum(1.0 - left, _WORST))


def spread(vectors: Vectors, mean: Vectors | Values) -> Values:
    """Return the squared distance of every unit row from the mean direction, (n,)."""
    return np.asarray(np.square(to_unit(vectors) - mean).sum(axis=-1))


def other_documents(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a permutation that pairs every row with a row of another document, (n,).

    Rows of one document are correlated, so pairs within a document would inflate the null. Rows at the same
    place of two documents, such as the prompt's end, are correlated too, so documents and the rows within
    them are shuffled (seeded). If one document holds more than half of all rows, some pairs stay within it.
    """
    rng = np.random.default_rng(0)
    names, inverse, counts = np.unique(documents, return_inverse=True, return_counts=True)
    order = np.lexsort((rng.random(len(documents)), rng.permutation(len(names))[inverse]))
    largest = int(counts.max())
    partner = np.empty(len(order), np.int64)
    partner[order] = np.roll(order, -largest)
    return partner


def share_interval(hits: NDArray[np.bool_]) -> Interval:
    """Return the share of hits, (n,) with n > 0, with its Wilson interval."""
    n, share = len(hits), float(np.mean(hits))
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * np.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    return Interval(share, float(max(centre - half, 0.0)), float(min(centre + half, 1.0)), n)


def mean_interval(
    values: Values, documents: NDArray[np.int64], *, rounds: int = 1000, seed: int = 0
) -> Interval:
    """Return the mean with a bootstrap interval over documents, whose rows are correlated."""
    _, group = np.unique(documents, return_inverse=True)
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(rounds, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(np.mean(values)), float(low), float(high), len(values))
