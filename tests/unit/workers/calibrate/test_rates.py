"""Seeded simulations: the rate is what was asked for, and the limits hold as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.calibrate import incidents, rates

ROUNDS = 2000


def draw(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> NDArray[np.float64]:
    """Return scores of exchangeable requests, without ties, with some, or with many."""
    values = rng.standard_normal(shape)
    shaped: dict[str, NDArray[np.float64]] = {
        "continuous": values,
        "rounded": values.round(1),
        "counts": np.floor(np.exp(values)),
    }
    return shaped[kind]


@pytest.mark.parametrize("kind", ["continuous", "rounded", "counts"])
@pytest.mark.parametrize(("n", "rate"), [(299, 0.01), (1000, 0.01), (500, 0.02), (59, 0.05)])
def test_of_twenty_calibrations_nineteen_flag_at_the_asked_rate_or_less(
    kind: str, n: int, rate: float
) -> None:
    rng = np.random.default_rng(n)
    benign, many = draw(rng, (ROUNDS, n), kind), np.sort(draw(rng, (1_000_000,), kind))

    above = np.array([rates.threshold_for(scores, rate).above for scores in benign])

    share = 1 - np.searchsorted(many, above, side="right") / len(many)
    # Three standard errors are left to chance, of the calibrations and of the rate's own measurement.
    covered = np.mean(share <= rate + 3 * (rate / len(many)) ** 0.5)
    assert covered >= rates.CONFIDENCE - 3 * (0.05 * 0.95 / ROUNDS) ** 0.5
    assert share.mean() <= rate


@pytest.mark.parametrize(("n", "rate"), [(299, 0.01), (500, 0.01), (700, 0.02)])
def test_the_upper_limit_covers_the_true_rate_of_the_chosen_threshold(n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    scores = rng.uniform(size=(ROUNDS, n))

    found = [rates.threshold_for(row, rate) for row in scores]

    limit = rates.upper_limit(found[0].allowed, n)
    covered = np.mean([1 - one.above <= limit for one in found])
    assert covered >= rates.CONFIDENCE - 3 * (0.05 * 0.95 / ROUNDS) ** 0.5


@pytest.mark.parametrize("true_rate", [0.002, 0.01, 0.03])
def test_the_upper_limit_covers_the_rate_of_a_fixed_rule(true_rate: float) -> None:
    incidents_of = np.random.default_rng(3).binomial(559, true_rate, ROUNDS)

    covered = np.mean([rates.upper_limit(int(count), 559) >= true_rate for count in incidents_of])

    assert covered >= rates.CONFIDENCE - 3 * (0.05 * 0.95 / ROUNDS) ** 0.5


def test_too_few_requests_are_refused_with_the_number_that_is_needed() -> None:
    assert rates.threshold_for(np.arange(299.0), 0.01) == rates.Threshold(298.0, 0)
    with pytest.raises(ValueError, match="95% confidence needs 299 requests or more, there are 298"):
        rates.threshold_for(np.arange(298.0), 0.01)


@given(st.integers(1, 3000), st.sampled_from([0.005, 0.01, 0.05, 0.3]))
def test_as_many_are_allowed_as_keep_the_limit_at_the_rate(n: int, rate: float) -> None:
    if n < rates.requests_needed(rate):
        return

    allowed = rates.threshold_for(np.arange(float(n)), rate).allowed

    assert rates.upper_limit(allowed, n) <= rate + 1e-9
    assert rates.upper_limit(allowed + 1, n) > rate


def test_a_limit_needs_about_three_requests_for_each_part_of_it() -> None:
    needed = rates.requests_needed(0.01)

    assert needed == 299
    assert rates.upper_limit(0, needed) <= 0.01 < rates.upper_limit(0, needed - 1)
    assert rates.upper_limit(5, 5) == 1.0


def test_a_request_is_scored_by_its_kth_position_or_by_its_certain_ones() -> None:
    assert incidents.score(np.array([0.2, 0.9, 0.5]), 2) == 0.5
    assert incidents.score(np.array([0.2, 1.0, 0.5]), 2) == 0.5
    assert incidents.score(np.array([1.0, 1.0, 0.5]), 2) == 1.0
    assert incidents.score(np.array([1.0, 1.0, 1.0]), 2) == 2.0
    assert incidents.score(np.array([1.0]), 2) == -1.0


position_scores = st.lists(st.sampled_from([-1.0, 0.1, 0.3, 0.5, 0.99, 1.0]), max_size=6)


@given(st.lists(position_scores, min_size=59, max_size=120), st.integers(2, 3))
def test_a_rule_flags_at_most_what_the_target_allows(requests: list[list[float]], required: int) -> None:
    positions = [np.array(scores) for scores in requests]
    scores = np.array([incidents.score(one, required) for one in positions])

    rule = incidents.choose_rule(scores, positions_required=required, target=0.05, least_threshold=0.4)

    assert sum(incidents.is_flagged(one, rule) for one in positions) <= rule.allowed
    assert rule.positions_required >= required
    assert rule.threshold is not None
    assert rule.threshold >= 0.4


def test_no_threshold_is_below_what_the_operator_set() -> None:
    scores = np.full(100, 0.2)

    own, low = (
        incidents.choose_rule(scores, positions_required=2, target=0.05, least_threshold=least)
        for least in (0.5, 0.1)
    )

    assert own.threshold == 0.5
    assert low.threshold == np.nextafter(0.2, 1)


def test_where_certain_matches_are_frequent_more_positions_are_required() -> None:
    positions = [np.ones(count) for count in [4, 3] * 10 + [0] * 80]
    scores = np.array([incidents.score(one, 2) for one in positions])

    rule = incidents.choose_rule(scores, positions_required=2, target=0.18, least_threshold=None)

    assert rule == incidents.Rule(positions_required=4, threshold=None, allowed=11)
    assert sum(incidents.is_flagged(one, rule) for one in positions) == 10


def test_requests_without_a_row_that_counts_stay_in_the_denominator() -> None:
    rows = incidents.by_request(["a", "b", "a"], [True, False, True])

    assert {request: places.tolist() for request, places in rows.items()} == {"a": [0, 2], "b": []}
