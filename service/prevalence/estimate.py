"""Estimates of how common something is in the traffic, from known inclusion probabilities. Pure.

The weight of a row or request is the inverse of its inclusion probability (Horvitz-Thompson). The share of
flagged ones is a ratio of two weighted sums (Hajek), so a common factor of the weights cancels. Rows of one
request are correlated, so requests are the clusters of the linearised with-replacement variance. That
variance is correct for the process that generates the traffic; for the traffic itself the variance is too
large when much of the traffic was sampled. The interval is that of a proportion at the effective sample
size: Wilson, or Clopper-Pearson for small counts (Korn and Graubard 1998).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]  # no types upstream

CONFIDENCE: Final = 0.95
_ROUNDING: Final = 1e-24  # a smaller variance is zero up to rounding
_LEAST_EXPECTED: Final = 5.0  # effective rows, flagged and unflagged each, below which Wilson is inaccurate


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRows:
    """Judged rows, as columns of shape (n,); raises ValueError for unequal lengths or invalid shares."""

    request: NDArray[np.integer[Any]]
    """A number that identifies each row's request."""
    probability: NDArray[np.float64]
    """Inclusion probability, in (0, 1]."""
    is_flagged: NDArray[np.bool_]
    retained: NDArray[np.float64]
    """Share of the sampled rows of the same stratum and minute that were not lost, in (0, 1]."""

    def __post_init__(self) -> None:
        _check((self.request, self.probability, self.is_flagged, self.retained))
        _check_shares(probability=self.probability, retained=self.retained)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Number of rows of the traffic that each row represents, lost ones included; (n,)."""
        return 1.0 / (self.probability * self.retained)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRequests:
    """Judged requests, alike ones together, as columns of shape (n,).

    Raises ValueError for unequal lengths, negative counts or invalid shares.
    """

    count: NDArray[np.integer[Any]]
    """How many requests are alike."""
    probability: NDArray[np.float64]
    """Inclusion probability, in (0, 1]."""
    is_flagged: NDArray[np.bool_]
    retained: NDArray[np.float64]
    """As in `SampledRows`."""

    def __post_init__(self) -> None:
        _check((self.count, self.probability, self.is_flagged, self.retained))
        _check_shares(probability=self.probability, retained=self.retained)
        if (self.count < 0).any():
            raise ValueError("count must not be negative")

    @property
    def weights(self) -> NDArray[np.float64]:
        """Number of requests of the traffic that each request represents, lost ones included; (n,)."""
        return 1.0 / (self.probability * self.retained)


def _check(columns: Sequence[NDArray[Any]]) -> None:
    if len({len(column) for column in columns}) != 1:
        raise ValueError("the columns differ in length")


def _check_shares(**columns: NDArray[np.float64]) -> None:
    for name, values in columns.items():
        if not ((values > 0.0) & (values <= 1.0)).all():
            raise ValueError(f"{name} must be in (0, 1]")


class Prevalence(NamedTuple):
    """An estimated share of rows with its interval."""

    estimate: float
    lower: float
    upper: float
    rows: int
    requests: int
    effective_rows: float  # size of the simple random sample with the same variance
    design_effect: float  # rows / effective_rows


class RequestShare(NamedTuple):
    """An estimated share of requests with its interval."""

    estimate: float
    lower: float
    upper: float
    requests: int
    flagged: int
    effective_requests: float  # size of the simple random sample with the same variance
    design_effect: float  # requests / effective_requests


class FittedShare(NamedTuple):
    """An estimated share with what its intervals follow from."""

    estimate: float
    effective: float  # size of the simple random sample with the same variance
    degrees_of_freedom: float  # of the variance estimate

    def interval(self, tail: float) -> tuple[float, float]:
        """Return the interval that leaves out this probability, in (0, 0.5), at each end."""
        share, effective = self.estimate, self.effective
        # A variance estimated from few requests is itself uncertain: shrink the effective size.
        z = -float(special.ndtri(tail))
        if math.isfinite(self.degrees_of_freedom):
            effective *= (z / float(special.stdtrit(self.degrees_of_freedom, tail))) ** 2
        if effective * min(share, 1.0 - share) >= _LEAST_EXPECTED:
            middle = (share + z * z / (2.0 * effective)) / (1.0 + z * z / effective)
            half = (
                z
                / (1.0 + z * z / effective)
                * math.sqrt(share * (1.0 - share) / effective + z * z / (4.0 * effective**2))
            )
            return max(0.0, middle - half), min(1.0, middle + half)
        flagged = share * effective
        lower = (
            float(special.betaincinv(flagged, effective - flagged + 1.0, tail)) if flagged > 0.0 else 0.0
        )
        upper = 1.0
        if flagged < effective:
            upper = float(special.betainccinv(flagged + 1.0, effective - flagged, tail))
        return lower, upper


class Total(NamedTuple):
    """An estimated number of flagged rows in the traffic."""

    estimate: float
    standard_error: float


def estimate_prevalence(rows: SampledRows, confidence: float = CONFIDENCE) -> Prevalence:
    """Return the share of flagged rows with its interval, which is 0 to 1 without any row."""
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
        # One request, or all rows equal: the sample has no variance. Kish's effective size of the
        # requests' weights takes its place.
        totals = by_request.sums(weights)
        effective, freedom = float(totals.sum() ** 2 / (totals @ totals)), math.inf
    lower, upper = FittedShare(share, effective, freedom).interval((1.0 - confidence) / 2.0)
    return Prevalence(share, lower, upper, count, by_request.count, effective, count / effective)


def estimate_share(requests: SampledRequests, confidence: float = CONFIDENCE) -> RequestShare:
    """Return the share of flagged requests with its interval, which is 0 to 1 without any request."""
    fitted = fit_share(requests)
    if fitted is None:
        return RequestShare(math.nan, 0.0, 1.0, 0, 0, 0.0, math.nan)
    count = int(requests.count.sum())
    lower, upper = fitted.interval((1.0 - confidence) / 2.0)
    flagged = int(requests.count @ requests.is_flagged)
    effective = fitted.effective
    return RequestShare(fitted.estimate, lower, upper, count, flagged, effective, count / effective)


def fit_share(requests: SampledRequests) -> FittedShare | None:
    """Return the share of flagged requests with its precision; None without any request."""
    count = int(requests.count.sum())
    if not count:
        return None
    weights = requests.weights
    total = float(requests.count @ weights)
    share = min(1.0, float(requests.count @ (weights * requests.is_flagged)) / total)
    spread = _spread((weights * (requests.is_flagged - share)) ** 2, requests.count)
    variance = spread.variance / total**2
    if variance > _ROUNDING:
        effective, freedom = min(share * (1.0 - share) / variance, float(count)), spread.degrees_of_freedom
    else:
        # All or none are flagged: the sample has no variance, and Kish's effective size takes its place.
        effective, freedom = total**2 / float(requests.count @ weights**2), math.inf
    return FittedShare(share, effective, freedom)


def estimate_total(rows: SampledRows) -> Total:
    """Return the estimated number of flagged rows in the traffic."""
    values = rows.weights * rows.is_flagged
    return Total(float(values.sum()), math.sqrt(_Clusters(rows.request).spread(values).variance))


class _Spread(NamedTuple):
    variance: float
    degrees_of_freedom: float  # of the variance estimate (Satterthwaite)


class _Clusters:
    def __init__(self, request: NDArray[np.integer[Any]]) -> None:
        names, self._index = np.unique(request, return_inverse=True)
        self.count = len(names)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of the values per request, (requests,)."""
        return np.bincount(self._index, weights=values, minlength=self.count).astype(np.float64)

    def spread(self, values: NDArray[np.float64]) -> _Spread:
        """Return the variance of the total when requests, and their number, are random."""
        return _spread(self.sums(values) ** 2, np.ones(self.count, np.int64))


def _spread(squares: NDArray[np.float64], counts: NDArray[np.integer[Any]]) -> _Spread:
    """Return the variance of the total of independent values, of which ``counts`` have these squares."""
    count = int(counts.sum())
    total = float(counts @ squares)
    excess = float(counts @ squares**2) - total * total / max(1, count)
    freedom = 2.0 * total * total / excess if excess > 0.0 else math.inf
    return _Spread(total * count / max(1, count - 1), max(1.0, min(freedom, count - 1.0)))
