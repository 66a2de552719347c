"""How much of a vector survives the way through text: cosine, unit MSE and FVE; pure numpy.

FVE is measured on unit vectors against predicting the calibration mean:
`1 - |u - u_hat|^2 / baseline` with `baseline = mean |u - mean(u)|^2 = 1 - |mean(u)|^2`.
1 is perfect, 0 is no better than the mean. FVE beyond the token is the share of what the direction of the
token's own mean leaves open; the record names the token anyway. Both tell that a decoder works on a
vector, never that a claim in the text is true.
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
    """An estimate with its 95% interval and the number of readings that it stands on."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """Return the JSON form of cards and calibrations."""
        return {
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
            "n": self.n,
        }


def to_unit(vectors: Vectors | Values) -> Values:
    """Rescale every row of (n, d) to norm 1, in double precision; zero rows stay zero."""
    rows = np.asarray(vectors, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY))


def cosine(vectors: Vectors, rebuilt: Vectors) -> Values:
    """Cosine of every row with its rebuilt row, (n,)."""
    return np.asarray((to_unit(vectors) * to_unit(rebuilt)).sum(axis=-1))


def unit_mse(vectors: Vectors, rebuilt: Vectors | Values) -> Values:
    """Squared distance of unit rows, `2 (1 - cosine)`: 0 to 4, the official training loss."""
    return np.asarray(np.square(to_unit(vectors) - to_unit(rebuilt)).sum(axis=-1))


def mean_direction(vectors: Vectors) -> Values:
    """Mean of the unit rows, (d,): what a decoder that knows nothing would predict."""
    return np.asarray(to_unit(vectors).mean(axis=0))


def fve_baseline(vectors: Vectors) -> float:
    """Mean squared distance of unit rows from their mean; at least 2 different rows, else ValueError."""
    baseline = float(1.0 - np.square(mean_direction(vectors)).sum())
    if len(vectors) < 2 or baseline <= _TINY:  # noqa: PLR2004 - a spread needs two
        raise ValueError("vectors: need at least 2 with different directions to measure a baseline")
    return baseline


def fve(vectors: Vectors, rebuilt: Vectors | Values, *, baseline: float) -> Values:
    """Fraction of variance explained of every row, (n,): at most 1, below 0 when worse than the mean."""
    return 1.0 - unit_mse(vectors, rebuilt) / baseline


def fve_beyond_token(fves: Values, fves_of_token_mean: Values) -> Values:
    """Return the share of what the token's mean leaves open that a reading explains, (n,): -1 to 1.

    Where the token's mean is nearly right, being a little off is many times what was left open: such rows
    would drown every average, so that twice what was left open is the worst there is.
    """
    left = (1.0 - fves) / np.maximum(1.0 - fves_of_token_mean, _LEAST_OPEN)
    return np.asarray(np.maximum(1.0 - left, _WORST))


def spread(vectors: Vectors, mean: Vectors | Values) -> Values:
    """Squared distance of every unit row from the mean direction, (n,)."""
    return np.asarray(np.square(to_unit(vectors) - mean).sum(axis=-1))


def other_documents(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every row the index of a row of another document, each used exactly once.

    Rows of one document are alike, so pairing them would flatter the null. Documents and the rows
    within them are shuffled (seeded): rows at the same place of two documents, such as the end of the
    prompt, are alike too, and must meet as rarely as chance has it. Where one document holds more
    than half of all rows, some rows have to get a row of their own document.
    """
    rng = np.random.default_rng(0)
    names, inverse, counts = np.unique(documents, return_inverse=True, return_counts=True)
    order = np.lexsort((rng.random(len(documents)), rng.permutation(len(names))[inverse]))
    largest = int(counts.max())
    partner = np.empty(len(order), np.int64)
    partner[order] = np.roll(order, -largest)
    return partner


def share_interval(hits: NDArray[np.bool_]) -> Interval:
    """Return the share of hits with its Wilson interval; at least one row."""
    n, share = len(hits), float(np.mean(hits))
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * np.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    return Interval(share, float(max(centre - half, 0.0)), float(min(centre + half, 1.0)), n)


def mean_interval(
    values: Values, documents: NDArray[np.int64], *, rounds: int = 1000, seed: int = 0
) -> Interval:
    """Return the mean with its bootstrap interval over whole documents, because rows of one are alike."""
    _, group = np.unique(documents, return_inverse=True)
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(rounds, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(np.mean(values)), float(low), float(high), len(values))
