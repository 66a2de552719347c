"""When requests are tested for being anomalies, and which of them together. Pure.

A window is the denominator of its discoveries: the rate holds among all requests of it, so each request is
tested in one window only. A window without any anomaly has a false discovery with at most the probability
`fdr`; so windows must not be small and many. But a p-value never falls below a floor that the number of
benign requests sets, so a request that stands alone can only be found among at most fdr / floor. Windows
have enough requests for the first and not too many for the second; a reference that allows no such window
finds nothing, and says so.
"""

import datetime as dt
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from service.store.write.window import NewTest, NewWindow, Untested
from workers.judge import conformal
from workers.judge.discoveries import FDR, bh_threshold, q_values
from workers.judge.request_anomalies import JudgedRow, RequestNull


class Readiness(StrEnum):
    """Whether requests can be tested, and why not."""

    READY = "ready"
    NO_REFERENCE = "no_reference"  # the decoder has no anomaly reference
    TOO_FEW_REQUESTS = "too_few_requests"  # in the reference, for the rate and the size of windows


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """How requests are put into windows."""

    fdr: float = FDR
    length: dt.timedelta = dt.timedelta(hours=1)
    """From one window's close to the next one's, at least."""
    least_requests: int = 20
    """A window with fewer waits for more."""
    longest: dt.timedelta = dt.timedelta(days=1)
    """No request waits for longer: then its window may have fewer."""
    settle: dt.timedelta = dt.timedelta(minutes=15)
    """A request is complete when no row of it was stored for so long."""
    late: dt.timedelta = dt.timedelta(hours=6)
    """A request is tested when it was complete so long after others of its time, and not later."""

    @property
    def reference_requests(self) -> int:
        """The least number of benign requests that a reference must rank a request among."""
        return conformal.requests_needed(self.fdr / self.least_requests)


class RequestTester:
    """Tests requests by one reference."""

    def __init__(self, null: RequestNull, reference_digest: str, plan: WindowPlan) -> None:
        """``null`` uses no number of rows that fewer than the plan's ``reference_requests`` have."""
        self._null = null
        self._digest = reference_digest
        self._plan = plan

    @property
    def readiness(self) -> Readiness:
        """Whether the reference is large enough; without that nothing is tested."""
        return Readiness.READY if self._null.most_rows else Readiness.TOO_FEW_REQUESTS

    @property
    def most_requests(self) -> int:
        """The largest window in which one request alone can be a discovery."""
        return math.floor(self._plan.fdr / self._null.floor + 1e-9)

    def close(self, untested: Sequence[Untested], now: dt.datetime) -> list[NewWindow]:
        """Return the windows that are closed now, of requests in the order of their first capture.

        None while there are too few requests and the oldest has not waited for long.
        """
        if not untested or self.readiness != Readiness.READY:
            return []
        waits_long = untested[0].first_captured_at <= now - self._plan.longest
        if len(untested) < self._plan.least_requests and not waits_long:
            return []
        count = math.ceil(len(untested) / self.most_requests)
        bounds = [len(untested) * number // count for number in range(count + 1)]
        return [self._window(untested[start:stop], now) for start, stop in itertools.pairwise(bounds)]

    def _window(self, requests: Sequence[Untested], now: dt.datetime) -> NewWindow:
        ranked = [self._rank(request) for request in requests]
        p_values = np.array([one.p_value for one in ranked])
        threshold = bh_threshold(p_values, self._plan.fdr)
        q_of = q_values(p_values)
        places = np.searchsorted(np.sort(p_values), p_values, side="right")
        tests = [
            NewTest(
                request=request,
                p_value=one.p_value,
                q_value=float(q_value),
                rank=int(place),
                calibration_n=one.calibration_n,
                positions=[row.position for row in one.rows],
                row_p_values=[row.p_value for row in one.rows],
                is_discovery=one.p_value <= threshold,
            )
            for request, one, q_value, place in zip(requests, ranked, q_of, places, strict=True)
        ]
        return NewWindow(
            reference_digest=self._digest,
            fdr=self._plan.fdr,
            threshold=threshold or None,
            closed_at=now,
            tests=sorted(tests, key=lambda test: test.rank),
        )

    def _rank(self, request: Untested) -> "_Ranked":
        name = request.capture_id.hex
        rows = [
            JudgedRow(position, p_value, is_baseline=True)
            for position, p_value in zip(request.positions, request.p_values, strict=True)
        ]
        used = sorted(self._null.choose(name, rows))
        test = self._null.rank(name, [row.p_value for row in used])
        return _Ranked(test.p_value, test.calibration_n, used)


class _Ranked(NamedTuple):
    p_value: float
    calibration_n: int
    rows: Sequence[JudgedRow]
