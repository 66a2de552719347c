import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.local.policy import ScreenPolicy
from subtext_sidecar.plugin.sampling import rule as sampling
from subtext_sidecar.screen import thinning
from subtext_sidecar.screen.thinning import Arrivals, Rates
from tests.support.secret import KEY

POLICIES = st.builds(
    ScreenPolicy,
    baseline_rate=st.floats(0.001, 1.0),
    rows_per_second=st.floats(0.0, 1e5),
    baseline_share=st.floats(0.0, 1.0),
)


@st.composite
def arrivals(draw: st.DrawFn) -> Arrivals:
    rows = draw(st.integers(0, 100_000))
    return Arrivals(rows, draw(st.integers(0, rows)))


def test_without_a_budget_the_baseline_has_its_rate_and_every_found_row_passes() -> None:
    policy = ScreenPolicy(baseline_rate=0.1)
    state = thinning.adapt(thinning.start(policy), policy, Arrivals(100_000, 9), 1.0)

    assert state.rates == Rates(0.1, 1.0)


@given(policy=POLICIES, seen=st.lists(arrivals(), max_size=20))
def test_rates_are_probabilities_and_a_found_row_never_has_the_lower(
    policy: ScreenPolicy, seen: list[Arrivals]
) -> None:
    state = thinning.start(policy)
    for one in seen:
        state = thinning.adapt(state, policy, one, 1.0)
        assert 0.0 <= state.rates.baseline <= state.rates.found <= 1.0
        assert state.rates.baseline <= policy.baseline_rate


@given(policy=POLICIES, steady=arrivals())
def test_steady_traffic_fills_the_budget_and_never_more(policy: ScreenPolicy, steady: Arrivals) -> None:
    state = thinning.start(policy)
    for _ in range(400):
        state = thinning.adapt(state, policy, steady, 1.0)

    ordinary = steady.rows - steady.found
    passed = state.rates.baseline * ordinary + state.rates.found * steady.found
    wanted = policy.baseline_rate * ordinary + steady.found
    if policy.rows_per_second:
        wanted = min(wanted, policy.rows_per_second)
        assert passed <= policy.rows_per_second * 1.001 + 1e-9
    if state.owed_rows < 1e-6:
        assert passed == pytest.approx(wanted, rel=1e-3)


@given(policy=POLICIES, steady=arrivals())
def test_found_rows_never_take_the_share_of_the_baseline(policy: ScreenPolicy, steady: Arrivals) -> None:
    state = thinning.follow_policy(
        thinning.adapt(thinning.start(ScreenPolicy()), ScreenPolicy(), steady, 1.0), policy
    )

    reserved = policy.baseline_share * policy.rows_per_second
    demand = policy.baseline_rate * steady.rows
    if policy.rows_per_second:
        assert state.rates.baseline * steady.rows >= min(reserved, demand) * (1 - 1e-9)


def test_a_surge_is_paid_back_so_that_the_budget_holds_in_the_long_run() -> None:
    policy = ScreenPolicy(rows_per_second=100.0)
    state, passed = thinning.start(policy), 0.0
    traffic = ([Arrivals(10)] * 30 + [Arrivals(2000, 50)] * 30) * 10
    for one in traffic:
        passed += state.rates.baseline * (one.rows - one.found) + state.rates.found * one.found
        state = thinning.adapt(state, policy, one, 1.0)

    assert passed <= 100.0 * len(traffic)
    assert state.rates.baseline > 0


def test_a_new_policy_holds_at_once() -> None:
    old = ScreenPolicy(rows_per_second=10.0)
    state = thinning.adapt(thinning.start(old), old, Arrivals(1000, 0), 1.0)

    assert state.rates.baseline < 0.02
    assert thinning.follow_policy(state, ScreenPolicy(baseline_rate=0.5)).rates == Rates(0.5, 1.0)


def test_draws_are_uniform_repeatable_and_independent_of_the_plugins() -> None:
    ids = [f"request-{number}" for number in range(20_000)]
    mine = np.array([thinning.draw(0, one) for one in ids])
    plugins = np.array([sampling.draw(KEY, 0, one).randomness for one in ids], np.float64)

    assert mine.tolist() == [thinning.draw(0, one) for one in ids]
    assert np.abs(np.histogram(mine, 10, (0, 1))[0] - 2000).max() < 4 * np.sqrt(2000)
    assert abs(np.corrcoef(mine, plugins)[0, 1]) < 4 / np.sqrt(len(ids))
    assert thinning.draw(1, ids[0]) != thinning.draw(0, ids[0])


@pytest.mark.parametrize(
    ("drawn", "is_found", "expected"),
    [
        (0.05, False, (0.05, 0.05)),
        (0.05, True, (0.2, 0.05)),
        (0.3, True, (0.2, 0.0)),
        (0.3, False, None),
        (0.9, True, None),
    ],
)
def test_probabilities_are_those_of_the_rule_that_let_the_row_pass(
    drawn: float, *, is_found: bool, expected: tuple[float, float] | None
) -> None:
    passed = thinning.pass_on(drawn, 0.5, Rates(0.1, 0.4), is_found=is_found)

    assert passed == (pytest.approx(expected) if expected else None)


def test_sums_over_what_passed_are_unbiased_by_both_probabilities_while_the_budget_adapts() -> None:
    rng = np.random.default_rng(0)
    policy = ScreenPolicy(baseline_rate=0.5, rows_per_second=40.0)
    by_all, by_baseline, truth = [], [], 0.0
    # The same traffic each time, in surges: found rows are the ones that are looked for.
    traffic = [
        [(f"r{second}-{n // 4}", bool(rng.random() < 0.1)) for n in range(int(rng.integers(20, 400)))]
        for second in range(15)
    ]
    truth = float(sum(is_found for second in traffic for _, is_found in second))
    for seed in range(300):
        state, sums = thinning.start(policy), np.zeros(2)
        for second in traffic:
            for request_id, is_found in second:
                drawn = thinning.draw(seed, request_id)
                passed = thinning.pass_on(drawn, 1.0, state.rates, is_found=is_found)
                if passed is not None and is_found:
                    sums[0] += 1 / passed.probability
                    sums[1] += 1 / passed.baseline_probability if passed.baseline_probability else 0
            arrived = Arrivals(len(second), sum(is_found for _, is_found in second))
            state = thinning.adapt(state, policy, arrived, 1.0)
        by_all.append(sums[0])
        by_baseline.append(sums[1])

    for estimates in (by_all, by_baseline):
        error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
        assert abs(np.mean(estimates) - truth) < 3 * error
    assert np.std(by_all) < np.std(by_baseline)
