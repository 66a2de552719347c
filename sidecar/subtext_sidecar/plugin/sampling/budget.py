"""Keep the sampled rows within ``rows_per_second``. Pure: ``now`` is an argument, in seconds.

Two parts. The rate: once a second, from what was seen before, the request rate is set so that the
expected rows fit with some room; a request's own chance never depends on itself, so its
probability is exact. The bucket: a hard limit for what the rate did not foresee; what it refuses
is a drop.

The demand is the larger of two estimates. One is what was wanted lately, each row weighted with its
request's probability, so that it does not move when the rate does, and the two cannot chase each other.
It is late wherever requests live long: after a start, or after a pause, nobody is followed yet. The other
looks ahead: each request that comes counts the most rows that can be wanted of it, times the part of that
most which is wanted on average. The part is wanted rows by the most of ended requests (a ratio estimate),
whose numerator holds the rows of running ones as well: the maximum-likelihood estimate under censoring for
a constant rate of ending, and above the truth where lengths are alike. Until one has ended the part is 1.

A surge counts at once, and cuts the rate by a limited factor: it is cheap to send many requests that end at
once, and whoever does must not choose by it how likely another request is sampled. From the next interval
on it is part of the mean.
"""

import math
from typing import Final, NamedTuple

from subtext_sidecar.local.policy import CapturePolicy

INTERVAL_SECONDS: Final = 1.0  # the rate stands still in between
MEMORY_SECONDS: Final = 10.0  # how long the demand remembers
SIZE_MEMORY_SECONDS: Final = 120.0  # how long the rows of a request are remembered
SURGE_DEVIATIONS: Final = 2.0  # by so many, of a Poisson count, requests must exceed what was expected
SURGE_CUT: Final = 4.0  # a surge lowers the rate by this factor at most
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
        room = ROOM * (limit - min(self._demand.opt_in, OPT_IN_SHARE * limit))
        usual = _rate_within(room, self._demand.uniform, policy.request_rate)
        return max(usual / SURGE_CUT, _rate_within(room, self._demand.surge, usual))

    def advance(self, now: float) -> None:
        """Let time pass; fixes a new rate when the interval is over."""
        self._demand.advance(now)

    def pause(self, now: float) -> None:
        """Say that rows and ends are not seen until ``advance``: what is known of them is kept."""
        self._demand.pause(now)

    def arrive(self, most_rows: int) -> None:
        """Say that a request came that may be sampled at random, and how many rows at most it can want."""
        self._demand.arrive(1, most_rows)

    def miss(self, requests: int, most_rows: int) -> None:
        """Say that such requests came of which nobody knows more; ``most_rows`` is the most of any."""
        self._demand.miss(requests, most_rows)

    def observe(self, uniform: float, opt_in: int) -> None:
        """Say how many rows were wanted; each uniform one counts the inverse of its request's rate."""
        self._demand.observe(uniform, opt_in)

    def end(self, most_rows: float) -> None:
        """Say that nothing more is wanted of a request; its most rows are weighted as in ``observe``."""
        self._demand.end(most_rows)

    def admit(self, policy: CapturePolicy, *, uniform: int, opt_in: int, now: float) -> Allowance:
        """Return how many of these rows may pass."""
        limit = policy.rows_per_second
        if not limit:
            return Allowance(uniform, opt_in)
        passed = self._opt_in.take(opt_in, OPT_IN_SHARE * limit, now)
        allowed = self._all.take(passed + uniform, limit, now)
        passed = min(passed, allowed)
        return Allowance(allowed - passed, passed)


def _rate_within(room: float, demand: float, rate: float) -> float:
    """Return the rate, or the lower one at which this demand fits into the room."""
    return min(rate, max(LEAST_RATE, room / demand)) if demand else rate


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
        self._last = (0.0, 0.0)  # requests and their most rows in the last interval, a second
        self._requests = _Mean(MEMORY_SECONDS)
        self._most_rows = _Mean(MEMORY_SECONDS)  # of those requests
        self._wanted = _Mean(MEMORY_SECONDS)  # at a request rate of 1, like the two after it
        self._wanted_long = _Mean(SIZE_MEMORY_SECONDS)
        self._ends = _Mean(SIZE_MEMORY_SECONDS)  # in most rows of the ended
        self._opt_in = _Mean(MEMORY_SECONDS)

    @property
    def opt_in(self) -> float:
        return self._opt_in.per_second

    @property
    def uniform(self) -> float:
        """Rows a second at a request rate of 1."""
        # In the first interval there is no mean, and who came is all that is known.
        came = self._most_rows.fresh / INTERVAL_SECONDS if self._is_new else self._most_rows.per_second
        return max(self._wanted.per_second, came * self._part)

    @property
    def surge(self) -> float:
        """Rows a second of those who came just now, so far as chance does not explain how many they are."""
        if self._is_new:
            return 0.0
        fresh = (self._requests.fresh / INTERVAL_SECONDS, self._most_rows.fresh / INTERVAL_SECONDS)
        return self._part * max(
            most_rows * max(0.0, 1.0 - SURGE_DEVIATIONS / math.sqrt(requests)) if requests else 0.0
            for requests, most_rows in (fresh, self._last)
        )

    @property
    def _part(self) -> float:
        ends = self._ends.per_second
        return min(1.0, self._wanted_long.per_second / ends) if ends else 1.0

    def arrive(self, requests: int, most_rows: float) -> None:
        self._requests.fresh += requests
        self._most_rows.fresh += most_rows

    def miss(self, requests: int, most_rows: int) -> None:
        known = self._requests.per_second
        mean = self._most_rows.per_second / known if known else most_rows
        self.arrive(requests, requests * mean)

    def observe(self, uniform: float, opt_in: int) -> None:
        self._wanted.fresh += uniform
        self._wanted_long.fresh += uniform
        self._opt_in.fresh += opt_in

    def end(self, most_rows: float) -> None:
        self._ends.fresh += most_rows

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
        self._last = (self._requests.fresh / elapsed, self._most_rows.fresh / elapsed)
        self._requests.take(elapsed)
        self._most_rows.take(elapsed)
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
