"""Differences of shares: Newcombe's own example, the test that follows from the interval, and its error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.prevalence import change
from service.prevalence.estimate import FittedShare


def share(hits: int, n: int) -> FittedShare:
    return FittedShare(hits / n, n, math.inf)


def changed(before: tuple[int, int], after: tuple[int, int]) -> change.Change:
    found = change.estimate_change(share(*before), share(*after))
    assert found is not None
    return found


def test_the_interval_is_that_of_newcombes_example() -> None:
    # Newcombe 1998, table II, method 10: 56 of 70 against 48 of 80.
    found = changed((48, 80), (56, 70))

    assert (found.difference, found.lower, found.upper) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("hits", range(0, 101, 7))
def test_the_test_rejects_where_the_interval_leaves_out_zero(hits: int) -> None:
    found = changed((40, 100), (hits, 100))
    turned = changed((hits, 100), (40, 100))

    assert (found.p_value < 0.05) == (found.lower > 0 or found.upper < 0)
    assert turned.p_value == pytest.approx(found.p_value)
    assert turned.lower == pytest.approx(-found.upper)


def test_equal_shares_differ_in_nothing_and_far_ones_by_no_smaller_p_value_than_is_told() -> None:
    assert changed((3, 50), (6, 100)).p_value == 1.0
    assert changed((0, 50), (0, 50)).p_value == 1.0
    assert changed((0, 5000), (5000, 5000)).p_value == change.SMALLEST_P_VALUE


def test_without_requests_on_either_side_there_is_no_difference() -> None:
    assert change.estimate_change(None, share(1, 2)) is None
    assert change.estimate_change(share(1, 2), None) is None


@pytest.mark.parametrize(("n", "share_of_all"), [(30, 0.05), (200, 0.1), (100, 0.5)])
def test_where_nothing_changed_it_rejects_about_as_often_as_it_says(n: int, share_of_all: float) -> None:
    draws = np.random.default_rng(7).binomial(n, share_of_all, (400, 2))
    rejected = sum(changed((one, n), (other, n)).p_value <= 0.05 for one, other in draws.tolist())

    # 20 of 400 are meant, with a standard deviation of 4.4.
    assert rejected <= 33


def test_tests_are_adjusted_together() -> None:
    # By hand: 4 x 0.01, 4 x 0.04 / 2, then nothing above the next one.
    assert change.adjusted([0.04, 0.01, 0.5, 0.041]) == pytest.approx([0.164 / 3, 0.04, 0.5, 0.164 / 3])
    assert list(change.adjusted([])) == []


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=20))
def test_they_are_adjusted_as_scipy_does(p_values: list[float]) -> None:
    from scipy.stats import false_discovery_control  # type: ignore[import-untyped]  # no types upstream

    assert change.adjusted(p_values) == pytest.approx(false_discovery_control(p_values, method="bh"))


def sums_of(values: list[list[float]], weights: list[float]) -> change.Ratio:
    """Return the sums over requests, each with its rows' values and their weight."""
    w = np.array([weight * len(rows) for rows, weight in zip(values, weights, strict=True)])
    y = np.array([weight * sum(rows) for rows, weight in zip(values, weights, strict=True)])
    return change.Ratio(len(values), w.sum(), y.sum(), w @ w, w @ y, y @ y)


def test_a_mean_weighs_rows_and_its_interval_is_of_requests() -> None:
    found = change.mean_of(sums_of([[0.2, 0.4], [0.6]], [1.0, 2.0]))

    # (0.2 + 0.4 + 2 x 0.6) / 4 = 0.45. The residuals of the requests are -0.3 and 0.3, so the variance is
    # 0.18 x 2 / 1 / 16 = 0.0225, and Student's quantile of one degree of freedom is 12.7062.
    assert found is not None
    assert found.estimate == pytest.approx(0.45)
    assert found.lower == pytest.approx(0.45 - 12.7062 * 0.15, abs=1e-4)
    assert found.upper == 1.0


def test_a_single_request_gives_no_interval_of_a_mean_and_none_gives_no_mean() -> None:
    single = change.mean_of(sums_of([[0.2, 0.4]], [1.0]))

    assert single is not None
    assert (round(single.estimate, 9), single.lower, single.upper) == (0.3, None, None)
    assert change.mean_of(change.Ratio(0, 0.0, 0.0, 0.0, 0.0, 0.0)) is None
    assert change.share_of(change.Ratio(0, 0.0, 0.0, 0.0, 0.0, 0.0), 0) is None


def test_a_share_of_rows_is_as_precise_as_its_requests() -> None:
    alike = change.share_of(sums_of([[1, 1, 1, 1], [0, 0, 0, 0]] * 10, [1.0] * 20), 80)
    mixed = change.share_of(sums_of([[1, 0, 1, 0], [0, 1, 0, 1]] * 10, [1.0] * 20), 80)
    all_of_them = change.share_of(sums_of([[1, 1]] * 12, [1.0] * 12), 24)

    assert alike is not None
    assert mixed is not None
    assert all_of_them is not None
    assert (alike.estimate, alike.effective) == pytest.approx((0.5, 19.0))
    assert (mixed.estimate, mixed.effective) == pytest.approx((0.5, 20.0))  # no variance: Kish
    assert (all_of_them.estimate, all_of_them.effective) == pytest.approx((1.0, 12.0))
