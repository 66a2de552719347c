import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]  # no types upstream

from workers.judge.prevalence import SampledRows, estimate_prevalence, estimate_total


def rows_of(flags: list[bool], **changes: Any) -> SampledRows:
    count = len(flags)
    columns: dict[str, Any] = {
        "request": np.arange(count),
        "probability": np.ones(count),
        "is_flagged": np.array(flags, bool),
        "retained": np.ones(count),
    }
    return SampledRows(**{**columns, **changes})


def test_a_simple_random_sample_gives_the_wilson_interval() -> None:
    found = estimate_prevalence(rows_of([True] * 30 + [False] * 270))

    wilson = stats.binomtest(30, 300).proportion_ci(method="wilson")
    assert found.estimate == pytest.approx(0.1)
    assert found.design_effect == pytest.approx(1.0, abs=0.02)
    assert (found.lower, found.upper) == pytest.approx((wilson.low, wilson.high), abs=0.002)


def test_few_flags_give_the_exact_interval() -> None:
    found = estimate_prevalence(rows_of([True] * 2 + [False] * 298))

    exact = stats.binomtest(2, 300).proportion_ci(method="exact")
    assert found.lower <= exact.low
    assert found.upper >= exact.high


def test_no_flag_gives_about_three_over_n() -> None:
    found = estimate_prevalence(rows_of([False] * 1000))

    assert (found.estimate, found.lower) == (0.0, 0.0)
    assert found.upper == pytest.approx(3.69 / 1000, rel=0.01)  # two-sided; 3/n is one-sided


def test_all_flags_give_an_interval_up_to_one() -> None:
    found = estimate_prevalence(rows_of([True] * 50))

    assert (found.estimate, found.upper) == (1.0, 1.0)
    assert 0.9 < found.lower < 1.0


def test_without_rows_nothing_is_known() -> None:
    found = estimate_prevalence(rows_of([]))

    assert math.isnan(found.estimate)
    assert (found.lower, found.upper, found.rows) == (0.0, 1.0, 0)
    assert estimate_total(rows_of([])).estimate == 0.0


def test_rows_of_one_request_count_as_one() -> None:
    flags = [True] * 30 + [False] * 270
    clustered = estimate_prevalence(rows_of(flags, request=np.arange(300) // 10))

    assert clustered.estimate == pytest.approx(0.1)
    assert clustered.requests == 30
    assert clustered.design_effect == pytest.approx(10.0, rel=0.05)


def test_one_request_says_almost_nothing() -> None:
    found = estimate_prevalence(rows_of([True, False, False] * 20, request=np.zeros(60, int)))

    assert found.effective_rows == pytest.approx(1.0)
    assert found.lower < 0.01
    assert found.upper > 0.9


def test_each_row_counts_the_inverse_of_its_probability_and_of_what_was_retained() -> None:
    rows = rows_of(
        [True, True, False, False],
        probability=np.array([1.0, 0.5, 0.5, 1.0]),
        retained=np.array([1.0, 1.0, 0.5, 0.5]),
    )

    assert rows.weights.tolist() == [1, 2, 4, 2]
    assert estimate_prevalence(rows).estimate == pytest.approx(3 / 9)
    assert estimate_total(rows).estimate == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"probability": np.array([0.0])}, "probability"),
        ({"probability": np.array([1.5])}, "probability"),
        ({"retained": np.array([math.nan])}, "retained"),
        ({"request": np.array([1, 2])}, "length"),
    ],
)
def test_bad_columns_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        rows_of([True], **changes)


@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.floats(1e-4, 1.0), st.floats(0.01, 1.0), st.integers(0, 5)),
        min_size=1,
        max_size=60,
    ),
    factor=st.floats(0.01, 1.0),
)
def test_the_interval_holds_the_estimate_and_a_common_factor_cancels(
    rows: list[tuple[bool, float, float, int]], factor: float
) -> None:
    flags, probability, retained, request = (list(column) for column in zip(*rows, strict=True))
    columns: dict[str, Any] = {"retained": np.array(retained), "request": np.array(request)}
    found = estimate_prevalence(rows_of(flags, probability=np.array(probability), **columns))
    scaled = estimate_prevalence(rows_of(flags, probability=np.array(probability) * factor, **columns))

    assert 0.0 <= found.lower <= found.estimate + 1e-12
    assert found.estimate - 1e-12 <= found.upper <= 1.0
    assert scaled[:3] == pytest.approx(found[:3], abs=1e-9)
