"""Rates at a stated false-positive rate: exact intervals, conformal p-values, agreement of positions."""

import numpy as np
import pytest

from bench.trust.rates import agree, auroc, benign_needed, fuse, p_values, rate

REPETITIONS = 400


def test_a_rate_has_its_exact_interval() -> None:
    none = rate(np.zeros(100, bool))

    assert (none.share, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_no_trial_tells_nothing() -> None:
    assert rate(np.zeros(0, bool))[1:3] == (0.0, 1.0)
    assert rate(np.zeros(0, bool)).found == 0


def test_a_score_above_all_benign_ones_has_the_smallest_p_value() -> None:
    assert p_values(np.array([9.0]), np.linspace(0, 8, 9)).tolist() == [1 / 10]


def test_a_tie_counts_as_at_least_as_strange() -> None:
    assert p_values(np.array([8.0]), np.linspace(0, 8, 9)).tolist() == [2 / 10]


@pytest.mark.parametrize(("target", "needed"), [(0.01, 99), (0.05, 19), (0.5, 1)])
def test_the_smallest_p_value_reaches_the_rate(target: float, needed: int) -> None:
    assert benign_needed(target) == needed
    assert p_values(np.array([1.0]), np.zeros(needed))[0] <= target


def test_p_values_of_benign_scores_are_super_uniform() -> None:
    rng = np.random.default_rng(0)
    shares = [
        float(np.mean(p_values(rng.normal(size=50), rng.normal(size=199)) <= 0.05))
        for _ in range(REPETITIONS)
    ]

    assert np.mean(shares) <= 0.05 + 2 * np.std(shares) / np.sqrt(REPETITIONS)


def test_agreement_is_the_score_that_enough_positions_reach() -> None:
    assert agree(np.array([[1.0, 5.0, 3.0], [0.0, 0.0, 9.0]]), 2).tolist() == [3.0, 0.0]


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(0.875)


def test_one_small_p_value_is_enough_for_the_fused_score() -> None:
    both, one, neither = (
        fuse(np.array([p]), np.array([q])) for p, q in ((0.01, 0.01), (0.01, 0.5), (0.5, 0.5))
    )

    assert both > one > neither
