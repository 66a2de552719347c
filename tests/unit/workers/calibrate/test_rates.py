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
@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (199, 0.01), (500, 0.02), (59, 0.05)])
def test_exchangeable_requests_are_flagged_at_the_asked_rate_or_less(
    kind: str, n: int, rate: float
) -> None:
    rng = np.random.default_rng(n)
    benign, later = draw(rng, (ROUNDS, n), kind), draw(rng, (ROUNDS, 20), kind)

    above = np.array([rates.threshold_for(scores, rate).above for scores in benign])

    share = (later > above[:, None]).mean(axis=1)
    # Three standard errors are left to chance.
    assert share.mean() <= rate + 3 * share.std() / ROUNDS**0.5
    if kind == "continuous":
        assert share.mean() >= rate * 0.5 - 3 * share.std() / ROUNDS**0.5


@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (500, 0.01), (700, 0.02)])
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
    assert rates.requests_needed(0.01) == 99
    assert rates.threshold_for(np.arange(99.0), 0.01) == rates.Threshold(98.0, 0)
    with pytest.raises(ValueError, match="needs 1 / rate - 1 = 99 requests or more, there are 98"):
        rates.threshold_for(np.arange(98.0), 0.01)


def test_a_limit_needs_about_three_requests_for_each_part_of_it() -> None:
    needed = rates.requests_needed_for_limit(0.01)

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


@given(st.lists(position_scores, min_size=20, max_size=60), st.integers(2, 3))
def test_a_rule_flags_at_most_what_the_target_allows(requests: list[list[float]], required: int) -> None:
    positions = [np.array(scores) for scores in requests]
    scores = np.array([incidents.score(one, required) for one in positions])

    rule = incidents.choose_rule(scores, positions_required=required, target=0.05, has_threshold=True)

    assert sum(incidents.is_flagged(one, rule) for one in positions) <= rule.allowed
    assert rule.positions_required >= required


def test_where_certain_matches_are_frequent_more_positions_are_required() -> None:
    positions = [np.ones(count) for count in [4, 3] * 10 + [0] * 80]
    scores = np.array([incidents.score(one, 2) for one in positions])

    rule = incidents.choose_rule(scores, positions_required=2, target=0.15, has_threshold=False)

    assert rule == incidents.Rule(positions_required=4, threshold=None, allowed=14)
    assert sum(incidents.is_flagged(one, rule) for one in positions) == 10


def test_requests_without_a_row_that_counts_stay_in_the_denominator() -> None:
    rows = incidents.by_request(["a", "b", "a"], [True, False, True])

    assert {request: places.tolist() for request, places in rows.items()} == {"a": [0, 2], "b": []}
