"""One conformal p-value for a whole request, from the p-values of its rows. Pure.

Rows of one request depend on each other, so the smallest of ten p-values is no p-value, and ten requests of
one row each are not one request of ten. The statistic of a request is the mean of its rows' -log p, as in
Fisher's method; but its distribution is that of benign requests with as many rows, so nothing is assumed
about how rows depend on each other. The p-value is super-uniform where benign requests, and the choice of
their rows, are exchangeable with those of the reference; see `workers.judge.conformal`.

Rows that only the screen chose were chosen for being unusual and are left out. A request with more rows
than the reference knows is judged by as many of them as it knows, drawn by a hash of their positions.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.anomaly.score import Floats
from workers.judge import conformal
from workers.judge.discoveries import RequestTest

LEAST_REQUESTS: Final = 100
"""With fewer benign requests a p-value would floor above 0.01."""


class JudgedRow(NamedTuple):
    """One row of a request, as it is stored with its explanation."""

    position: int
    p_value: float
    """Conformal, in (0, 1]."""
    is_baseline: bool
    """The random baseline chose the row, whether or not the screen did too."""


class RequestNull:
    """How benign requests are distributed, for every number of rows."""

    def __init__(self, row_p_values: Floats, *, least_requests: int = LEAST_REQUESTS) -> None:
        """Rank benign requests by their rows' p-values, (requests, rows).

        Each request's rows are in random order; 0 stands where it has no more. A number of rows that fewer
        than ``least_requests`` requests have is not used.
        """
        is_row = row_p_values > 0.0
        evidence = np.where(is_row, -np.log(np.where(is_row, row_p_values, 1.0).astype(np.float64)), 0.0)
        counts, sums = is_row.sum(axis=1), evidence.cumsum(axis=1)
        self._ranked: dict[int, NDArray[np.float64]] = {}
        self._p_values: dict[int, NDArray[np.float64]] = {}
        for rows in range(1, row_p_values.shape[1] + 1):
            statistics = sums[counts >= rows, rows - 1] / rows
            if len(statistics) >= least_requests:
                self._ranked[rows] = np.sort(statistics)
                self._p_values[rows] = conformal.p_values(len(statistics))

    @property
    def most_rows(self) -> int:
        """The largest number of rows that a request can be judged by; 0 with too few requests."""
        return max(self._ranked, default=0)

    @property
    def floor(self) -> float:
        """A p-value that every number of rows can reach; 1 with too few requests."""
        return max((float(found[0]) for found in self._p_values.values()), default=1.0)

    def choose(self, capture_id: str, rows: Sequence[JudgedRow]) -> list[JudgedRow]:
        """Return the rows that a request is judged by; none when it has none of the baseline."""
        usable = sorted(
            (row for row in rows if row.is_baseline), key=lambda row: _draw(capture_id, row.position)
        )
        return usable[: self.most_rows]

    def judge(self, capture_id: str, rows: Sequence[JudgedRow]) -> RequestTest | None:
        """Return the test of a request, or None when no row of it can be used."""
        used = self.choose(capture_id, rows)
        if not used:
            return None
        return self.rank(capture_id, [row.p_value for row in used])

    def rank(self, capture_id: str, p_values: Sequence[float]) -> RequestTest:
        """Return the test of a request by the p-values of at most ``most_rows`` rows of it."""
        ranked = self._ranked[len(p_values)]
        statistic = float(-np.log(np.asarray(p_values, np.float64)).mean())
        # A hair less, because the same mean may be rounded to another number here than in the reference.
        as_extreme = len(ranked) - int(np.searchsorted(ranked, statistic * (1.0 - 1e-6), side="left"))
        p_value = float(self._p_values[len(p_values)][as_extreme])
        return RequestTest(capture_id, p_value, len(ranked), len(p_values))


def _draw(capture_id: str, position: int) -> bytes:
    return hashlib.blake2b(f"{capture_id}\x00{position}".encode(), digest_size=8).digest()
