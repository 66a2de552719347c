import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling import rule as sampling
from subtext_sidecar.plugin.sampling.budget import (
    BURST_SECONDS,
    INTERVAL_SECONDS,
    LEAST_BURST_ROWS,
    LEAST_RATE,
    OPT_IN_SHARE,
    ROOM,
    SURGE_CUT,
    Budget,
)

STEP_SECONDS = 0.05


def policy_of(rows_per_second: float, request_rate: float = 1.0) -> CapturePolicy:
    return CapturePolicy(rows_per_second=rows_per_second, request_rate=request_rate)


def steady(budget: Budget, rows_per_step: int, seconds: float, opt_in: int = 0) -> float:
    """Let the same demand come for a while; returns the time at the end."""
    now = 0.0
    while now < seconds:
        now += STEP_SECONDS
        budget.advance(now)
        budget.observe(float(rows_per_step), opt_in)
    return now


def test_without_a_budget_nothing_is_refused_and_the_rate_is_the_policys() -> None:
    budget, policy = Budget(), policy_of(0.0, 0.25)
    steady(budget, 100_000, 5.0)

    assert budget.rate(policy) == 0.25
    assert budget.admit(policy, uniform=10**6, opt_in=10**6, now=5.0) == (10**6, 10**6)


def test_the_rate_aims_at_the_budget_with_some_room() -> None:
    budget, policy = Budget(), policy_of(100.0)
    steady(budget, 100, 60.0)  # 2,000 rows a second at rate 1

    assert budget.rate(policy) == pytest.approx(ROOM * 100 / 2000, rel=0.02)


def test_a_demand_below_the_budget_leaves_the_rate_alone() -> None:
    budget, policy = Budget(), policy_of(100.0, 0.5)
    steady(budget, 1, 60.0)

    assert budget.rate(policy) == 0.5


def test_the_rate_knows_the_past_only() -> None:
    budget, policy = Budget(), policy_of(10.0)
    budget.advance(0.0)
    budget.observe(100.0, 0)
    budget.advance(INTERVAL_SECONDS)
    before = budget.rate(policy)

    budget.observe(1e9, 10**9)
    budget.advance(1.5 * INTERVAL_SECONDS)
    within = budget.rate(policy)
    budget.advance(2 * INTERVAL_SECONDS)

    assert before == within == pytest.approx(ROOM * 10 / 100)
    assert budget.rate(policy) == LEAST_RATE


def test_a_surge_that_ends_is_forgotten() -> None:
    budget, policy = Budget(), policy_of(100.0)
    now = steady(budget, 1000, 30.0)

    budget.advance(now + 120.0)
    budget.advance(now + 240.0)

    assert budget.rate(policy) == pytest.approx(1.0)


def test_opt_in_lowers_the_rate_of_the_others_by_its_share_at_most() -> None:
    policy = policy_of(100.0)
    budget = Budget()
    steady(budget, 100, 60.0, opt_in=1000)

    assert budget.rate(policy) == pytest.approx(ROOM * 100 * (1 - OPT_IN_SHARE) / 2000, rel=0.02)


def test_a_new_budget_counts_at_once() -> None:
    budget = Budget()
    steady(budget, 100, 60.0)

    assert budget.rate(policy_of(20.0)) == pytest.approx(ROOM * 20 / 2000, rel=0.02)
    assert budget.admit(policy_of(20.0), uniform=1000, opt_in=0, now=60.0).uniform == 20


@given(
    limit=st.floats(0.1, 5000),
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=40
    ),
)
def test_no_more_than_the_budget_and_one_burst_ever_passes(
    limit: float, steps: list[tuple[float, int, int]]
) -> None:
    budget, policy, now, passed, opt_in_passed = Budget(), policy_of(limit), 0.0, 0, 0
    for seconds, uniform, opt_in in steps:
        now += seconds
        admitted = budget.admit(policy, uniform=uniform, opt_in=opt_in, now=now)
        assert 0 <= admitted.uniform <= uniform
        assert 0 <= admitted.opt_in <= opt_in
        passed += sum(admitted)
        opt_in_passed += admitted.opt_in
        burst = max(LEAST_BURST_ROWS, BURST_SECONDS * limit)
        assert passed <= burst + now * limit + 1e-6
        assert opt_in_passed <= burst + now * limit * OPT_IN_SHARE + 1e-6


def test_chats_stay_within_the_budget_with_few_drops_and_unbiased_weights() -> None:
    budget, policy, chance = Budget(), policy_of(200.0), random.Random(1)  # noqa: S311  # a simulation
    lives: list[tuple[float, float]] = []  # probability, end
    seen = weighted = wanted = passed = 0.0
    rates = []
    now = 0.0
    for step in range(6000):  # 5 minutes
        now += STEP_SECONDS
        budget.advance(now)
        arrivals_per_second = 20 if step < 3000 else 60
        while chance.random() < arrivals_per_second * STEP_SECONDS / (
            1 + arrivals_per_second * STEP_SECONDS
        ):
            rate = sampling.probability(sampling.threshold(budget.rate(policy)))
            seen += 1
            if chance.random() < rate:
                weighted += 1 / rate
                lives.append((rate, now + chance.expovariate(1 / 8.0)))
        lives = [one for one in lives if one[1] > now]
        rows = [rate for rate, _ in lives if chance.random() < 0.25]
        budget.observe(sum(1 / rate for rate in rows), 0)
        admitted = budget.admit(policy, uniform=len(rows), opt_in=0, now=now)
        if step > 600:
            wanted += len(rows)
            passed += admitted.uniform
            rates.append(budget.rate(policy))

    # 60 requests a second of 8 s, 5 rows a second each: 2,400 rows a second at rate 1.
    assert rates[-1] == pytest.approx(ROOM * 200 / 2400, rel=0.35)
    assert passed / (5400 * STEP_SECONDS) <= 200
    assert passed / wanted > 0.93
    assert abs(weighted - seen) < 3 * math.sqrt(seen / min(rates))


PAUSE = (180.0, 210.0)  # between its two halves a breaker was open

LIVES: dict[str, Callable[[random.Random], float]] = {
    "of 8 s": lambda chance: chance.expovariate(1 / 8),
    "of a minute": lambda chance: chance.expovariate(1 / 60),
    "of 30 s each": lambda _: 30.0,
    "with a heavy tail": lambda chance: min(120.0, 3 * chance.paretovariate(1.3)),
}


class Traffic:
    """Requests that want two rows at once and later some five a second, under a budget."""

    def __init__(
        self, budget: Budget, policy: CapturePolicy, life: Callable[[random.Random], float]
    ) -> None:
        self._budget, self._policy, self._life = budget, policy, life
        self._chance = random.Random(3)  # noqa: S311  # a simulation
        self._lives: list[list[float]] = []  # probability, end, rows

    def step(self, now: float, arrivals_per_second: float) -> int:
        """Return how many rows are wanted in this step, before any is refused."""
        self._budget.advance(now)
        for _ in range(self.arrivals(arrivals_per_second)):
            rate = sampling.probability(sampling.threshold(self._budget.rate(self._policy)))
            if self._chance.random() < rate:
                self._lives.append([rate, now + self._life(self._chance), 0])
            self._budget.arrive(self._policy.max_rows_per_request)
        wanted = 0.0
        for one in self._lives:
            if one[1] > now:
                rows = 2 * (one[2] == 0) + (self._chance.random() < 5 * STEP_SECONDS)
                rows = min(rows, self._policy.max_rows_per_request - int(one[2]))
                one[2] += rows
                wanted += rows
                self._budget.observe(rows / one[0], 0)
            if one[1] <= now or one[2] == self._policy.max_rows_per_request:
                self._budget.end(self._policy.max_rows_per_request / one[0])
                one[1] = 0.0
        self._lives = [one for one in self._lives if one[1]]
        return int(wanted)

    def arrivals(self, per_second: float) -> int:
        """Draw how many requests come in a step."""
        count, passed = 0, self._chance.expovariate(1.0)
        while passed < per_second * STEP_SECONDS:
            count += 1
            passed += self._chance.expovariate(1.0)
        return count

    def lose(self) -> None:
        """Nobody is followed any more."""
        self._lives.clear()


@pytest.mark.parametrize("life", LIVES)
def test_after_a_start_and_after_a_pause_what_is_wanted_is_near_the_budget_at_once(life: str) -> None:
    """Or a start under load, and whoever can cause a pause, would make drops of most rows for a minute."""
    budget, policy = Budget(), policy_of(200.0)
    traffic, wanted = Traffic(budget, policy, LIVES[life]), [0] * 300
    for step in range(int(300 / STEP_SECONDS)):
        now = step * STEP_SECONDS
        if PAUSE[0] <= now < PAUSE[1]:
            if now - PAUSE[0] < STEP_SECONDS / 2:
                budget.pause(now)
                traffic.lose()
            budget.miss(traffic.arrivals(60.0), policy.max_rows_per_request)
        else:
            wanted[int(now)] += traffic.step(now, 60.0)

    first, again = sum(wanted[:60]) / 60, sum(wanted[210:270]) / 60
    assert 0.4 * 200 < first < 1.2 * 200
    assert 0.4 * 200 < again < 1.2 * 200


def test_a_surge_after_a_quiet_hour_counts_at_once() -> None:
    budget, policy = Budget(), policy_of(200.0)
    traffic, wanted = Traffic(budget, policy, LIVES["of a minute"]), 0
    for step in range(int(160 / STEP_SECONDS)):
        rows = traffic.step(step * STEP_SECONDS, 0.05 if step * STEP_SECONDS < 100 else 60.0)
        wanted += rows if step * STEP_SECONDS >= 100 else 0

    assert wanted / 60 < 1.2 * 200


def test_in_a_pause_time_stands_still_but_for_who_comes() -> None:
    budget, policy = Budget(), policy_of(100.0)
    now = steady(budget, 100, 60.0)
    before = budget.rate(policy)

    budget.pause(now)
    budget.pause(now)
    budget.observe(1e9, 10**6)  # of the step in which it began; nobody knows whether all of it
    budget.advance(now + 600.0)
    assert budget.rate(policy) == before

    budget.pause(now + 600.0)
    budget.miss(600 * 1000, policy.max_rows_per_request)
    budget.advance(now + 1200.0)
    assert budget.rate(policy) == pytest.approx(ROOM * 100 / (1000 * policy.max_rows_per_request), rel=0.02)


def test_until_a_request_has_ended_each_counts_as_the_most_that_it_may_take() -> None:
    budget, policy = Budget(), policy_of(100.0)
    budget.advance(0.0)
    assert budget.rate(policy) == 1.0

    for _ in range(50):
        budget.arrive(policy.max_rows_per_request)
    assert budget.rate(policy) == pytest.approx(ROOM * 100 / (50 * policy.max_rows_per_request))
    budget.observe(50 * 4, 0)
    for _ in range(50):
        budget.end(policy.max_rows_per_request)
    budget.advance(INTERVAL_SECONDS)

    assert budget.rate(policy) == pytest.approx(ROOM * 100 / (50 * 4))


def settled(budget: Budget, policy: CapturePolicy) -> float:
    """Let a request a second come that can want 60 rows and wants 40; returns the time at the end."""
    now = 0.0
    while now < 100.0:
        now += 1.0
        budget.advance(now)
        budget.arrive(60)
        budget.observe(40.0, 0)
        budget.end(60.0)
    assert budget.rate(policy) == pytest.approx(0.5, rel=0.02)
    return now


@pytest.mark.parametrize("requests", [10, 100, 1000])
def test_a_flood_that_can_want_nothing_lowers_no_rate(requests: int) -> None:
    budget, policy = Budget(), policy_of(25.0)
    now = settled(budget, policy)
    before = budget.rate(policy)

    for _ in range(requests):
        budget.arrive(0)
        budget.end(0.0)
    assert budget.rate(policy) == before
    budget.advance(now + 1.0)
    assert budget.rate(policy) == pytest.approx(before)


@pytest.mark.parametrize("requests", [100, 1000, 100_000])
def test_a_flood_lowers_the_rate_of_its_own_step_by_a_limited_factor(requests: int) -> None:
    budget, policy = Budget(), policy_of(25.0)
    settled(budget, policy)
    before = budget.rate(policy)

    for _ in range(requests):
        budget.arrive(60)

    assert budget.rate(policy) == pytest.approx(before / SURGE_CUT)


def test_a_missed_request_counts_as_those_before() -> None:
    budget, policy = Budget(), policy_of(25.0)
    now = settled(budget, policy)
    before = budget.rate(policy)

    budget.pause(now)
    budget.miss(100, policy.max_rows_per_request)
    budget.advance(now + 100.0)

    assert budget.rate(policy) == pytest.approx(before, rel=0.02)
