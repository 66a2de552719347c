import datetime as dt

import pytest

from service.prevalence.retained import Cell, MinuteRows, retained_by_cell

FIRST = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)
SECOND = FIRST + dt.timedelta(minutes=1)


def test_each_stratum_and_minute_has_its_own_share() -> None:
    found = retained_by_cell(
        [
            MinuteRows(FIRST, "uniform", 100, 25),
            MinuteRows(FIRST, "opt_in", 10, 0),
            MinuteRows(SECOND, "uniform", 50, 5),
            MinuteRows(SECOND, "opt_out", 0, 0),
        ]
    )

    assert found == {
        Cell(FIRST, "uniform"): 0.75,
        Cell(FIRST, "opt_in"): 1.0,
        Cell(SECOND, "uniform"): 0.9,
    }


def test_rows_that_no_longer_tell_their_stratum_count_against_all_of_their_minute() -> None:
    found = retained_by_cell(
        [
            MinuteRows(FIRST, "uniform", 80, 20),
            MinuteRows(FIRST, "opt_in", 40, 0),
            MinuteRows(FIRST, "unknown", 0, 10),
        ]
    )

    assert found == {
        Cell(FIRST, "uniform"): pytest.approx(0.75 * 0.9),
        Cell(FIRST, "opt_in"): pytest.approx(0.9),
    }


def test_a_share_stays_within_zero_and_one() -> None:
    found = retained_by_cell(
        [
            MinuteRows(FIRST, "uniform", 10, 30),
            MinuteRows(FIRST, "unknown", 0, 5),
            MinuteRows(SECOND, "uniform", 10, -2),
        ]
    )

    assert found == {Cell(FIRST, "uniform"): pytest.approx(0.1), Cell(SECOND, "uniform"): 1.0}
