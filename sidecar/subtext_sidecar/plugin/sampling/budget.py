"""Keep the sampled rows within ``rows_per_second``. Pure: ``now`` is an argument, in seconds.

Two parts. The rate: once a second, from what was seen before, the request rate is set so that the
expected rows fit with some room; a request's own chance never depends on itself, so its
probability is exact. The bucket: a hard limit for what the rate did not foresee; what it refuses
is a drop.

The demand is estimated by weighting each wanted row with its request's probability, so the
estimate does not move when the rate does, and the two cannot chase each other.
"""

import math
from typing import Final, NamedTuple

from subtext_sidecar.local.policy import CapturePolicy

INTERVAL_SECONDS: Final = 1.0  # the rate stands still in between
MEMORY_SECONDS: Final = 10.0  # how long the demand remembers
ROOM: Final = 0.8  # part of the budget that the rate aims at
LEAST_RATE: Final = 2.0**-16  # no request gets a weight above its inverse
OPT_IN_SHARE: Final = 0.5  # opt-in can take this part of the budget, so that it cannot starve the rest
BURST_SECONDS: Final = 1.0  # of rows may come at once
LEAST_BURST_ROWS: Final = 16.0


class Allowance(NamedTuple):
    """How many rows may pass."""

    uniform: int
    opt_in: int


class Budget:
    """The demand that was seen, and the rows that may still pass."""

    def __init__(self) -> None:
        self._demand = _Demand()
        self._all = _Bucket()
        self._opt_in = _Bucket()

    def rate(self, policy: CapturePolicy) -> float:
        """Return the request rate in force; it changes only in ``advance`` or with the policy."""
        uniform, opt_in = self._demand.uniform, self._demand.opt_in
        limit = policy.rows_per_second
        if not limit or not uniform:
            return policy.request_rate
        room = ROOM * (limit - min(opt_in, OPT_IN_SHARE * limit))
        return min(policy.request_rate, max(LEAST_RATE, room / uniform))

    def advance(self, now: float) -> None:
        """Let time pass; fixes a new rate when the interval is over."""
        self._demand.advance(now)

    def observe(self, uniform: float, opt_in: int) -> None:
        """Say how many rows were wanted; each uniform one counts the inverse of its request's rate."""
        self._demand.observe(uniform, opt_in)

    def admit(self, policy: CapturePolicy, *, uniform: int, opt_in: int, now: float) -> Allowance:
        """Return how many of these rows may pass."""
        limit = policy.rows_per_second
        if not limit:
            return Allowance(uniform, opt_in)
        passed = self._opt_in.take(opt_in, OPT_IN_SHARE * limit, now)
        allowed = self._all.take(passed + uniform, limit, now)
        passed = min(passed, allowed)
        return Allowance(allowed - passed, passed)


class _Demand:
    """Rows a second, with an exponential memory."""

    def __init__(self) -> None:
        self.uniform = 0.0  # at a request rate of 1
        self.opt_in = 0.0
        self._since: float | None = None
        self._seconds = 0.0
        self._sums = (0.0, 0.0)
        self._fresh_uniform = 0.0
        self._fresh_opt_in = 0

    def observe(self, uniform: float, opt_in: int) -> None:
        self._fresh_uniform += uniform
        self._fresh_opt_in += opt_in

    def advance(self, now: float) -> None:
        if self._since is None:
            self._since = now
        elapsed = now - self._since
        if elapsed < INTERVAL_SECONDS:
            return
        kept = math.exp(-elapsed / MEMORY_SECONDS)
        seconds = MEMORY_SECONDS * (1.0 - kept)  # what remains of those that passed
        share = seconds / elapsed
        self._since = now
        self._seconds = self._seconds * kept + seconds
        self._sums = (
            self._sums[0] * kept + self._fresh_uniform * share,
            self._sums[1] * kept + self._fresh_opt_in * share,
        )
        self._fresh_uniform, self._fresh_opt_in = 0.0, 0
        self.uniform, self.opt_in = self._sums[0] / self._seconds, self._sums[1] / self._seconds


class _Bucket:
    """A token bucket that starts full."""

    def __init__(self) -> None:
        self._tokens = math.inf
        self._at = 0.0

    def take(self, wanted: int, rows_per_second: float, now: float) -> int:
        burst = max(LEAST_BURST_ROWS, BURST_SECONDS * rows_per_second)
        self._tokens = min(burst, self._tokens + (now - self._at) * rows_per_second)
        self._at = now
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken
