"""How often something is found in the traffic, from rows sampled with known probabilities. Pure.

Every row counts the inverse of its inclusion probability (Horvitz-Thompson); the share of flagged
rows is the ratio of two such sums (Hajek), so that a common factor of all weights cancels. Rows of
one request resemble each other, so the variance is taken between requests, linearised and with
replacement: exact for the process behind the traffic, and on the wide side for the traffic itself
when much of it was sampled. The interval is that of a proportion on the effective sample size:
Wilson, or Clopper-Pearson when there is little to count (Korn and Graubard 1998).
"""

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # no types upstream

CONFIDENCE: Final = 0.95
_ROUNDING: Final = 1e-24  # a variance up to here is none
_LEAST_EXPECTED: Final = 5.0  # flagged and unflagged effective rows, for Wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRows:
    """Rows that were judged; arrays of shape (n,)."""

    request: NDArray[np.integer[Any]]
    """Which request each row belongs to: equal numbers, equal request."""
    probability: NDArray[np.float64]
    """Inclusion probability, in (0, 1]."""
    is_flagged: NDArray[np.bool_]
    retained: NDArray[np.float64]
    """Share of the sampled rows like this one, by stratum and minute, that were not lost; in (0, 1]."""

    def __post_init__(self) -> None:
        sizes = {len(column) for column in (self.request, self.probability, self.is_flagged, self.retained)}
        if len(sizes) != 1:
            raise ValueError("columns of SampledRows differ in length")
        for name in ("probability", "retained"):
            values = getattr(self, name)
            if not ((values > 0.0) & (values <= 1.0)).all():
                raise ValueError(f"{name} must be in (0, 1]")

    @property
    def weights(self) -> NDArray[np.float64]:
        """How many rows of the traffic each stands for; a lost row is stood for by those like it."""
        return 1.0 / (self.probability * self.retained)


class Prevalence(NamedTuple):
    """An estimated share of rows with its interval."""

    estimate: float
    lower: float
    upper: float
    rows: int
    requests: int
    effective_rows: float  # so many rows of a simple random sample tell as much
    design_effect: float  # rows / effective_rows


class Total(NamedTuple):
    """An estimated number of flagged rows in the traffic."""

    estimate: float
    standard_error: float


def estimate_prevalence(rows: SampledRows, confidence: float = CONFIDENCE) -> Prevalence:
    """Return the share of flagged rows. With no row at all nothing is known: 0 to 1."""
    weights = rows.weights
    count = len(weights)
    if not count:
        return Prevalence(math.nan, 0.0, 1.0, 0, 0, 0.0, math.nan)
    share = float(weights @ rows.is_flagged / weights.sum())
    by_request = _Clusters(rows.request)
    spread = by_request.spread(weights * (rows.is_flagged - share))
    variance = spread.variance / weights.sum() ** 2
    if variance > _ROUNDING:
        effective = min(share * (1.0 - share) / variance, float(count))
        freedom = spread.degrees_of_freedom
    else:
        # One request, or all alike: only the weights tell how much was seen.
        totals = by_request.sums(weights)
        effective, freedom = float(totals.sum() ** 2 / (totals @ totals)), math.inf
    lower, upper = _interval(share, effective, freedom, confidence)
    return Prevalence(share, lower, upper, count, by_request.count, effective, count / effective)


def estimate_total(rows: SampledRows) -> Total:
    """Return the number of flagged rows in the traffic."""
    values = rows.weights * rows.is_flagged
    return Total(float(values.sum()), math.sqrt(_Clusters(rows.request).spread(values).variance))


class _Spread(NamedTuple):
    variance: float
    degrees_of_freedom: float  # of the variance: by its own variance (Satterthwaite)


class _Clusters:
    def __init__(self, request: NDArray[np.integer[Any]]) -> None:
        names, self._index = np.unique(request, return_inverse=True)
        self.count = len(names)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of each request's values."""
        return np.bincount(self._index, weights=values, minlength=self.count).astype(np.float64)

    def spread(self, values: NDArray[np.float64]) -> _Spread:
        """Return how the sum varies when requests come independently, their number included."""
        squares = self.sums(values) ** 2
        total = float(squares.sum())
        excess = float(squares @ squares) - total * total / max(1, self.count)
        freedom = 2.0 * total * total / excess if excess > 0.0 else math.inf
        return _Spread(
            total * self.count / max(1, self.count - 1), max(1.0, min(freedom, self.count - 1.0))
        )


def _interval(
    share: float, effective: float, degrees_of_freedom: float, confidence: float
) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    # A variance that few requests decide is known badly itself.
    effective *= (stats.norm.isf(tail) / stats.t.isf(tail, degrees_of_freedom)) ** 2
    if effective * min(share, 1.0 - share) >= _LEAST_EXPECTED:
        z = float(stats.norm.isf(tail))
        middle = (share + z * z / (2.0 * effective)) / (1.0 + z * z / effective)
        half = (
            z
            / (1.0 + z * z / effective)
            * math.sqrt(share * (1.0 - share) / effective + z * z / (4.0 * effective**2))
        )
        return max(0.0, middle - half), min(1.0, middle + half)
    flagged = share * effective
    lower = float(stats.beta.ppf(tail, flagged, effective - flagged + 1.0)) if flagged > 0.0 else 0.0
    upper = float(stats.beta.isf(tail, flagged + 1.0, effective - flagged)) if flagged < effective else 1.0
    return lower, upper
