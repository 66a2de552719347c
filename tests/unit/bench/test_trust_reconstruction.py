"""The reconstruction error of bench-trust as an anomaly score: which rows, which scores, which bars."""

import numpy as np
import pytest

from bench.trust.reading import Read
from bench.trust.reconstruction import scores

METHODS = (scores.ERROR, scores.BEYOND, scores.SAMPLED, scores.WHOLE)


def test_rows_are_spread_from_the_first_to_the_last() -> None:
    rows = np.arange(10, 21)

    found = scores.spread(rows, 3)

    assert found is not None
    assert found.tolist() == [10, 15, 20]
    assert scores.spread(rows[:2], 3) is None


def test_a_request_scores_the_mean_of_what_its_readings_leave_unexplained() -> None:
    reads = [
        [Read("", 0.9, 0.5, verified=True, kinds={}), Read("", 0.7, -0.5, verified=False, kinds={})],
        [Read("", 0.5, None, verified=True, kinds={})] * 2,
    ]

    found = scores.reading_scores(reads)

    assert found[scores.ERROR] == pytest.approx([0.2, 0.5])
    assert found[scores.BEYOND] == pytest.approx([1.0, 0.5])


def test_fused_scores_weigh_each_score_by_its_spread_over_benign_requests() -> None:
    known = np.array([-1.0, 1.0])

    found = scores.fuse([(np.array([2.0, 0.0]), known), (np.array([0.0, 200.0]), 100 * known)])

    assert found == pytest.approx([1.0, 1.0])


def made(rng: np.random.Generator, count: int, shift: float) -> dict[str, np.ndarray]:
    return {method: rng.normal(size=count) + shift for method in METHODS}


def test_two_weak_scores_tell_more_together_and_each_kind_meets_or_misses_its_bar() -> None:
    rng = np.random.default_rng(0)
    by_kind = {
        "benign": made(rng, 200, 0.0),
        "Arabic": made(rng, 60, 1.0),
        "Cyrillic": made(rng, 60, 6.0),
        "words shuffled": made(rng, 60, 1.0),
    }

    rows = scores.figures(by_kind, "benign")
    bars = scores.judge(rows)

    of_arabic = {row.method: row.auroc.value for row in rows if row.kind == "Arabic"}
    assert of_arabic[scores.FUSED_WHOLE] > max(of_arabic[scores.BEYOND], of_arabic[scores.WHOLE])
    assert {row.benign for row in rows} == {100}
    assert [bar.is_passed for bar in bars] == [False, True]
    assert "(60)" in scores.text(rows, bars)


def test_halves_of_benign_requests_are_alike_though_they_come_by_length() -> None:
    by_length = np.linspace(0.0, 1.0, 400)
    by_kind = {
        "benign": dict.fromkeys(METHODS, by_length),
        "Arabic": dict.fromkeys(METHODS, by_length),
    }

    rows = scores.figures(by_kind, "benign")

    assert [row.auroc.value for row in rows] == pytest.approx([0.5] * len(rows), abs=0.1)
