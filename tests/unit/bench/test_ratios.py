"""Ratios are paired by round, intervals come from rounds, and bars are judged by the median."""

import numpy as np
import pytest

from bench.ratios import Bar, Estimate, estimate, judge, paired_ratios, percentile, pooled_percentile_ratio


def test_a_percentile_of_nothing_is_an_error() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 99)


def test_pairing_by_round_cancels_what_both_arms_share() -> None:
    baseline = [100.0, 50.0, 200.0]

    assert paired_ratios([98.0, 49.0, 196.0], baseline) == pytest.approx([0.98, 0.98, 0.98])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        paired_ratios([98.0], baseline)


def test_the_interval_holds_the_median_and_narrows_with_more_rounds() -> None:
    random = np.random.default_rng(1)
    few, many = (estimate(random.normal(1.0, 0.02, rounds).tolist()) for rounds in (7, 70))

    assert few.low <= few.median <= few.high
    assert many.high - many.low < few.high - few.low


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    figures = [estimate(random.normal(1.0, 0.02, 9).tolist()) for _ in range(200)]

    assert sum(figure.low <= 1.0 <= figure.high for figure in figures) >= 180


def test_the_same_rounds_give_the_same_interval() -> None:
    assert estimate([1.0, 1.1, 0.9]) == estimate([1.0, 1.1, 0.9])


def test_a_bar_is_judged_by_the_median_and_is_open_while_the_interval_contains_it() -> None:
    clear = Estimate(median=0.995, low=0.992, high=0.999)
    open_still = Estimate(median=0.995, low=0.985, high=0.999)

    assert judge(Bar("at_least", 0.99), clear) == (True, False)
    assert judge(Bar("at_least", 0.99), open_still) == (True, True)
    assert judge(Bar("at_most", 1.05), Estimate(median=1.06, low=1.055, high=1.08)) == (False, False)


def test_a_pooled_percentile_sees_what_is_rare_in_every_single_round() -> None:
    steady = [[1.0] * 100 for _ in range(7)]
    one_stall_in_fifty = [[1.0] * 98 + [5.0] * 2 for _ in range(7)]

    assert pooled_percentile_ratio(one_stall_in_fifty, steady, 99) == (5.0, 5.0, 5.0)
    assert pooled_percentile_ratio(steady, steady, 99) == (1.0, 1.0, 1.0)
