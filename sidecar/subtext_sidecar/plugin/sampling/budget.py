"""Keep the sampled rows within ``rows_per_second``. Pure: ``now`` is an argument, in seconds.

Two parts. The rate: once a second, from what was seen before, the request rate is set so that the
expected rows fit with some room; a request's own chance never depends on itself, so its
probability is exact. The bucket: a hard limit for what the rate did not foresee; what it refuses
is a drop.

The demand is the larger of two estimates. One is what was wanted lately, each row weighted with its
request's probability, so that it does not move when the rate does, and the two cannot chase each other.
It is late wherever requests live long: after a start, or after a pause, nobody is followed yet. The other
looks ahead: rows a second are requests a second times rows a request (Little's law), and how many requests
come is known at once. Rows a request are wanted rows by ended requests, whose numerator holds those of
running ones as well: the maximum-likelihood estimate under censoring for a constant rate of ending, and
above the truth where lengths are alike. Until one has ended a request counts as the most that it may take.
"""

import math
from typing import Final, NamedTuple

from subtext_sidecar.local.policy import CapturePolicy

INTERVAL_SECONDS: Final = 1.0  # the rate stands still in between
MEMORY_SECONDS: Final = 10.0  # how long the demand remembers
SIZE_MEMORY_SECONDS: Final = 120.0  # how long the rows of a request are remembered
SURGE_DEVIATIONS: Final = 2.0  # by so many, of a Poisson count, requests must exceed what was expected
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
    """The demand that was seen, and the rows that may still pass. It outlives a capture."""

    def __init__(self) -> None:
        self._demand = _Demand()
        self._all = _Bucket()
        self._opt_in = _Bucket()

    def rate(self, policy: CapturePolicy) -> float:
        """Return the request rate in force; it changes in ``advance``, with the policy and in a surge."""
        limit = policy.rows_per_second
        if not limit:
            return policy.request_rate
        opt_in, uniform = self._demand.opt_in, self._demand.uniform(policy.max_rows_per_request)
        if not uniform:
            return policy.request_rate
        room = ROOM * (limit - min(opt_in, OPT_IN_SHARE * limit))
        return min(policy.request_rate, max(LEAST_RATE, room / uniform))

    def advance(self, now: float) -> None:
        """Let time pass; fixes a new rate when the interval is over."""
        self._demand.advance(now)

    def pause(self, now: float) -> None:
        """Say that rows and ends are not seen until ``advance``: what is known of them is kept."""
        self._demand.pause(now)

    def arrive(self, requests: int) -> None:
        """Say how many requests came that may be sampled at random."""
        self._demand.arrive(requests)

    def observe(self, uniform: float, opt_in: int) -> None:
        """Say how many rows were wanted; each uniform one counts the inverse of its request's rate."""
        self._demand.observe(uniform, opt_in)

    def end(self, weight: float) -> None:
        """Say that nothing more is wanted of a request, of this weight as in ``observe``."""
        self._demand.end(weight)

    def admit(self, policy: CapturePolicy, *, uniform: int, opt_in: int, now: float) -> Allowance:
        """Return how many of these rows may pass."""
        limit = policy.rows_per_second
        if not limit:
            return Allowance(uniform, opt_in)
        passed = self._opt_in.take(opt_in, OPT_IN_SHARE * limit, now)
        allowed = self._all.take(passed + uniform, limit, now)
        passed = min(passed, allowed)
        return Allowance(allowed - passed, passed)


class _Mean:
    """Something a second, with an exponential memory; what was before the start is no part of it."""

    __slots__ = ("_memory", "_seconds", "_sum", "fresh", "per_second")

    def __init__(self, memory_seconds: float) -> None:
        self._memory = memory_seconds
        self._seconds = self._sum = 0.0
        self.fresh = 0.0  # since the last interval
        self.per_second = 0.0

    def take(self, elapsed: float) -> None:
        """Take in what is fresh, which came evenly in so many seconds."""
        kept = math.exp(-elapsed / self._memory)
        seconds = self._memory * (1.0 - kept)  # what remains of those that passed
        self._seconds = self._seconds * kept + seconds
        self._sum = self._sum * kept + self.fresh * seconds / elapsed
        self.fresh = 0.0
        self.per_second = self._sum / self._seconds


class _Demand:
    """Rows a second, of the past and of those who came."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._is_paused = False
        self._is_new = True  # the first interval is not over
        self._last_arrivals = 0.0  # of the last interval, a second
        self._arrivals = _Mean(MEMORY_SECONDS)
        self._wanted = _Mean(MEMORY_SECONDS)  # at a request rate of 1, like the two after it
        self._wanted_long = _Mean(SIZE_MEMORY_SECONDS)
        self._ends = _Mean(SIZE_MEMORY_SECONDS)
        self._opt_in = _Mean(MEMORY_SECONDS)

    @property
    def opt_in(self) -> float:
        return self._opt_in.per_second

    def uniform(self, most_rows: int) -> float:
        """Return rows a second at a request rate of 1; ``most_rows`` of a request can be taken."""
        ends = self._ends.per_second
        rows = min(most_rows, self._wanted_long.per_second / ends) if ends else most_rows
        return max(self._wanted.per_second, self._requests_per_second() * rows)

    def _requests_per_second(self) -> float:
        fresh = self._arrivals.fresh / INTERVAL_SECONDS
        if self._is_new:
            return fresh
        # A surge counts at once, so far as chance does not explain it.
        latest = max(fresh, self._last_arrivals)
        return max(self._arrivals.per_second, latest - SURGE_DEVIATIONS * math.sqrt(latest))

    def arrive(self, requests: int) -> None:
        self._arrivals.fresh += requests

    def observe(self, uniform: float, opt_in: int) -> None:
        self._wanted.fresh += uniform
        self._wanted_long.fresh += uniform
        self._opt_in.fresh += opt_in

    def end(self, weight: float) -> None:
        self._ends.fresh += weight

    def pause(self, now: float) -> None:
        if not self._is_paused:
            self.advance(now)
            self._is_paused = True

    def advance(self, now: float) -> None:
        if self._since is None:
            self._since = now
        seen = (self._wanted, self._wanted_long, self._ends, self._opt_in)
        was_paused, self._is_paused = self._is_paused, False
        if was_paused:
            # Nobody looked. For what is not known time stood still; who came was counted all the same.
            for one in seen:
                one.fresh = 0.0
        elapsed = now - self._since
        if elapsed < INTERVAL_SECONDS:
            return
        self._since = now
        self._is_new = False
        self._last_arrivals = self._arrivals.fresh / elapsed
        self._arrivals.take(elapsed)
        if not was_paused:
            for one in seen:
                one.take(elapsed)


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
