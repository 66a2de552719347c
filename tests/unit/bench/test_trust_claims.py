"""Claims of bench-trust: recurrence, calibration curves and abstention, from claims that are made up."""

import numpy as np
import pytest

from bench.trust.claims import figures


def test_an_area_counts_once_a_request_by_how_many_positions_name_it() -> None:
    named = np.array([[3, 3, 1, -1], [3, 3, 3, 2], [-1, -1, -1, -1]])

    rows = figures.area_recurrence(named, np.array([3, 2, 3]))

    assert [(row.positions, row.right.found, row.right.n) for row in rows] == [
        (1, 1, 2),
        (2, 1, 1),
        (3, 0, 1),
    ]


def test_each_kind_of_a_request_is_a_claim_of_its_own() -> None:
    named = np.array([[[True, False], [True, True]], [[False, False], [False, False]]])

    rows = figures.kind_recurrence(named, np.array([[True, False], [True, True]]))

    assert [(row.positions, row.right.found, row.right.n) for row in rows] == [(1, 0, 1), (2, 1, 1)]


def test_the_curve_shows_what_is_claimed_beside_what_is_right() -> None:
    claimed = np.array([0.05, 0.85, 0.8, 1.0])

    bins = figures.curve(figures.AREA, claimed, np.array([False, True, False, True]))

    assert [one.least for one in bins] == [0.0, 0.8, 0.9]
    assert [one.right.n for one in bins] == [1, 2, 1]
    assert bins[1].claimed == pytest.approx(0.825)
    assert figures.expected_error(bins) == pytest.approx((0.05 + 2 * 0.325 + 0.0) / 4)


def test_kinds_that_claims_do_not_keep_are_no_claims() -> None:
    bins = figures.kind_curve(np.array([[0.001, 0.5]]), np.array([[False, True]]))

    assert [one.right.n for one in bins] == [1]


def test_abstention_is_told_of_readings_and_of_whole_requests() -> None:
    named = np.array([[-1, 2], [-1, -1]])

    found = figures.abstention(named, np.array([0, 1]))

    assert (found.readings.found, found.requests.found) == (2, 1)


def test_the_text_shows_a_denominator_with_every_share() -> None:
    bins = [
        *figures.curve(figures.AREA, np.array([0.5]), np.array([True])),
        *figures.curve(figures.KIND, np.array([0.5]), np.array([True])),
    ]
    absent = figures.abstention(np.array([[-1]]), np.array([0]))

    text = figures.text(figures.area_recurrence(np.array([[1, 1]]), np.array([1])), bins, absent)

    assert text.count("(1 of 1)") == 5
