import math
import random

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
