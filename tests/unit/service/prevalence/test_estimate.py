import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]  # no types upstream

from service.prevalence.estimate import (
    SampledRequests,
    SampledRows,
    estimate_prevalence,
    estimate_share,
    estimate_total,
)


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


def requests_of(rows: SampledRows) -> SampledRequests:
    return SampledRequests(
        count=np.ones(len(rows.request), np.int64),
        probability=rows.probability,
        is_flagged=rows.is_flagged,
        retained=rows.retained,
    )


@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.floats(1e-3, 1.0), st.floats(0.05, 1.0)), min_size=1, max_size=40
    )
)
def test_requests_of_one_row_each_give_the_same_as_their_rows(
    rows: list[tuple[bool, float, float]],
) -> None:
    flags, probability, retained = (list(column) for column in zip(*rows, strict=True))
    of_rows = rows_of(flags, probability=np.array(probability), retained=np.array(retained))
    expected, found = estimate_prevalence(of_rows), estimate_share(requests_of(of_rows))

    assert found[:3] == pytest.approx(expected[:3], abs=1e-9)
    assert (found.requests, found.flagged) == (expected.requests, sum(flags))
    assert found.effective_requests == pytest.approx(expected.effective_rows)


def test_alike_requests_may_be_counted_instead_of_listed() -> None:
    listed = rows_of([True] * 3 + [False] * 97, probability=np.full(100, 0.25))
    counted = SampledRequests(
        count=np.array([3, 97, 0]),
        probability=np.array([0.25, 0.25, 1.0]),
        is_flagged=np.array([True, False, True]),
        retained=np.ones(3),
    )

    assert estimate_share(counted) == pytest.approx(estimate_share(requests_of(listed)))


def test_without_requests_no_share_is_known() -> None:
    found = estimate_share(requests_of(rows_of([])))

    assert math.isnan(found.estimate)
    assert (found.lower, found.upper, found.requests, found.effective_requests) == (0.0, 1.0, 0, 0.0)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        SampledRequests(
            count=np.array([-1]),
            probability=np.ones(1),
            is_flagged=np.array([True]),
            retained=np.ones(1),
        )


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_interval_of_requests_holds_the_share_in_about_95_of_100_days(share: float) -> None:
    random = np.random.default_rng(7)
    rates = np.array([1.0, 0.5, 0.25, 0.1])
    days = 2_000
    held = 0
    for _ in range(days):
        judged = random.binomial(random.poisson(1_500, len(rates)), rates)
        flagged = random.binomial(judged, share)
        lost = random.beta(30, 2, len(rates))  # what arrived of each stratum and minute
        found = estimate_share(
            SampledRequests(
                count=np.concatenate([flagged, judged - flagged]),
                probability=np.tile(rates, 2),
                is_flagged=np.repeat([True, False], len(rates)),
                retained=np.tile(lost, 2),
            )
        )
        held += found.lower <= share <= found.upper

    assert 0.93 <= held / days <= 0.97
