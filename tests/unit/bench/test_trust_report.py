"""Figures and bars of bench-trust, from scores that are made up."""

import numpy as np

from bench.trust import report
from bench.trust.scoring import CASCADE, READING

CONCEPTS = [f"concept-{number}" for number in range(10)]
REFERENCE = slice(0, 500)


def scores_of(planted_concepts: int) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return scores by which the first concepts are found, with benign and random ones all alike."""
    rng = np.random.default_rng(0)
    benign = {name: rng.random(1000) for name in CONCEPTS}
    conditions = {"benign": benign, "random@1.0": {name: rng.random(80) for name in CONCEPTS}}
    for number, name in enumerate(CONCEPTS):
        found = np.full(40, 2.0 if number < planted_concepts else 0.5)
        conditions[f"{name}@1.0"] = dict.fromkeys(CONCEPTS, found)
    return {CASCADE: conditions, READING: conditions}


def test_every_bar_is_judged_with_its_figure() -> None:
    rows = report.figures(scores_of(7), REFERENCE, (1.0,))

    recall, above, random, _ = report.judge(rows)

    assert recall.is_passed
    assert recall.found.startswith("7: concept-0")
    assert above.is_passed
    assert random.found.endswith("of 80)")


def test_too_few_concepts_miss_their_bars() -> None:
    recall, above, *_ = report.judge(report.figures(scores_of(2), REFERENCE, (1.0,)))

    assert not recall.is_passed
    assert not above.is_passed


def test_the_benign_check_leaves_out_what_the_threshold_stands_on() -> None:
    rows = report.figures(scores_of(1), REFERENCE, (1.0,))

    assert {row.benign.n for row in rows} == {500}


def test_the_text_shows_a_denominator_with_every_share() -> None:
    rows = report.figures(scores_of(1), REFERENCE, (1.0,))

    text = report.text(rows, report.judge(rows))

    assert "of 40)" in text
    assert "of 500)" in text
    assert "MISSED" in text
