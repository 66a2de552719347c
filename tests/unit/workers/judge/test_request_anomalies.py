"""A request's p-value is super-uniform however its rows depend on each other, and however many it has."""

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.judge import conformal
from workers.judge.request_anomalies import JudgedRow, RequestNull

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5)


def row_p_values(
    requests: int, rows: int, *, correlation: float, shift: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """P-values of rows that share a factor within each request, as ranks among a million normal scores."""
    from scipy.special import ndtr  # type: ignore[import-untyped]  # no types upstream

    shared = rng.standard_normal((requests, 1)) * np.sqrt(correlation)
    own = rng.standard_normal((requests, rows)) * np.sqrt(1 - correlation)
    return np.asarray(np.maximum(ndtr(-(shared + own + shift)), 1e-6), np.float32)


def judged(p_values: NDArray[np.float32]) -> list[JudgedRow]:
    return [JudgedRow(place, float(value), is_baseline=True) for place, value in enumerate(p_values)]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("rows", [1, 4, 25])
def test_p_values_of_benign_requests_are_super_uniform(correlation: float, rows: int) -> None:
    rng = np.random.default_rng(rows)
    p_values = []
    for _ in range(60):  # the calibration set is drawn anew each time: the guarantee is over both
        null = RequestNull(row_p_values(200, 10, correlation=correlation, shift=0.0, rng=rng))
        # A request with more rows than the reference knows is judged by as many as it knows.
        new = row_p_values(60, rows, correlation=correlation, shift=0.0, rng=rng)
        tests = [null.judge(str(number), judged(one)) for number, one in enumerate(new)]
        p_values += [test.p_value for test in tests if test is not None]

    assert len(p_values) == 3600
    for level in LEVELS:
        share = float((np.array(p_values) <= level).mean())
        # Each round's 60 requests share 200 calibration requests, whose own spread counts as well.
        assert share <= level + 4 * np.sqrt(level * (1 - level) * (1 / 3600 + 1 / 12_000))


def test_many_slightly_odd_rows_tell_more_than_one() -> None:
    rng = np.random.default_rng(0)
    null = RequestNull(row_p_values(2000, 10, correlation=0.3, shift=0.0, rng=rng))
    odd = row_p_values(400, 10, correlation=0.3, shift=1.5, rng=rng)

    shares = []
    for rows in (1, 10):
        tests = [null.judge("c", judged(one[:rows])) for one in odd]
        shares.append(np.mean([test.p_value <= 0.05 for test in tests if test is not None]))

    assert shares[1] > shares[0] + 0.15


def test_rows_that_only_the_screen_chose_say_nothing() -> None:
    null = RequestNull(np.full((200, 4), 0.5, np.float32))
    by_screen = JudgedRow(3, 0.001, is_baseline=False)

    assert null.judge("c", [by_screen]) is None
    test = null.judge("c", [by_screen, JudgedRow(4, 0.6, is_baseline=True)])
    assert test is not None
    assert (test.rows, test.p_value) == (1, 1.0)


def test_the_smallest_p_value_is_that_of_the_reference() -> None:
    null = RequestNull(np.full((200, 4), 0.5, np.float32))

    test = null.judge("c", judged(np.full(9, 1e-4, np.float32)))

    assert test is not None
    assert (test.calibration_n, test.rows) == (200, 4)
    assert test.p_value == null.floor == pytest.approx(1 - 0.1 ** (1 / 100))


def test_equal_requests_are_as_extreme_as_each_other() -> None:
    values = np.random.default_rng(1).uniform(0.01, 1, (150, 3)).astype(np.float32)
    null = RequestNull(values)

    for count, values_of_one in enumerate(values[:20]):
        test = null.judge(str(count), judged(values_of_one))
        assert test is not None
        statistics = np.log(values.astype(np.float64)).sum(axis=1)
        as_extreme = (statistics <= statistics[count] + 1e-9).sum()
        assert test.p_value == conformal.p_values(150)[as_extreme]


def test_the_order_of_rows_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    null = RequestNull(row_p_values(300, 3, correlation=0.0, shift=0.0, rng=rng))
    rows = judged(row_p_values(1, 12, correlation=0.0, shift=0.0, rng=rng)[0])

    assert null.judge("c", rows) == null.judge("c", rows[::-1])


def test_a_number_of_rows_that_few_requests_have_is_not_used() -> None:
    values = np.full((250, 5), 0.5, np.float32)
    values[99:, 3:] = 0.0  # only 99 requests have more than three rows

    assert RequestNull(values).most_rows == 3
    assert RequestNull(values[:99]).most_rows == 0
    assert RequestNull(values[:99]).judge("c", [JudgedRow(1, 0.5, is_baseline=True)]) is None
