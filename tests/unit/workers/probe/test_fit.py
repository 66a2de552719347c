"""A probe is measured on requests that it was not fitted on, and refused when these are too few."""

import numpy as np
import pytest

from workers.judge.probes import ProbeError
from workers.probe import fit, report

NAME = fit.Name("bombs", "m", 1)
POSITIONS = 4
D_MODEL = 32


def requests(positives: int, negatives: int, benign: int = 0, *, shift: float = 2.0) -> fit.Requests:
    """Return requests whose positives lie ``shift`` along the first axis, and whose texts say it."""
    rng = np.random.default_rng(0)
    count = positives + negatives + benign
    documents = np.repeat(np.arange(count), POSITIONS)
    rows = rng.standard_normal((len(documents), D_MODEL)).astype(np.float32)
    rows[documents < positives, 0] += shift
    words = ["build", "a", "bomb"], ["bake", "a", "cake"]
    texts = [" ".join([*words[number >= positives], str(number)]) for number in range(count - benign)]
    lengths = np.where(np.arange(count) % 2, 10, 80)
    lengths[count - benign :] = 0
    return fit.Requests(rows, documents, np.arange(count) < positives, [*texts, *[None] * benign], lengths)


def test_a_concept_that_is_there_is_found_at_the_rate_by_length_and_beside_the_text() -> None:
    found = fit.fit(requests(100, 400, shift=6.0), fit.Rule(2, 0.05), NAME)

    assert found.measured.recall is not None
    assert found.measured.recall.value > 0.9
    assert (found.measured.positives, found.measured.negatives, found.measured.allowed) == (50, 200, 9)
    assert 0.05 < found.measured.upper_limit < 0.1
    assert list(found.measured.by_length) == ["under 16 tokens", "64 tokens and more"]
    assert sum(one.n for one in found.measured.by_length.values()) == 50
    assert found.text_classifier.recall is not None
    assert found.text_classifier.recall.value == 1.0
    assert abs(float(found.probe.direction[0])) > 0.9
    assert 0.0 < found.probe.threshold < 1.0


def test_a_concept_that_is_not_there_is_found_no_more_often_than_the_rate_lets() -> None:
    recalls = []
    for seed in range(5):
        recall = fit.fit(requests(100, 400, shift=0.0), fit.Rule(2, 0.05), NAME, seed=seed).measured.recall
        assert recall is not None
        recalls.append(recall.value)

    assert np.mean(recalls) < 0.15


def test_the_probe_flags_as_many_held_out_negatives_as_allowed() -> None:
    made = requests(40, 400)
    rule = fit.Rule(2, 0.05)

    found = fit.fit(made, rule, NAME)

    scores = fit.pool(made, found.probe.score(made.vectors), rule.positions_required)
    held_out = fit.hold_out(made, seed=0) & ~made.is_positive
    assert (scores[held_out] >= found.probe.threshold).sum() == found.measured.allowed


def test_a_request_scores_as_a_flag_counts_its_positions() -> None:
    made = requests(1, 1)._replace(documents=np.array([1, 0, 1, 0, 1, 1, 1, 1]))
    scores = np.array([0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])

    assert fit.pool(made, scores, 2).tolist() == [0.3, 0.6]
    assert fit.pool(made, scores, 3).tolist() == [-1.0, 0.5]


def test_benign_requests_count_for_the_threshold_and_not_for_the_text_classifier() -> None:
    found = fit.fit(requests(60, 60, 140, shift=6.0), fit.Rule(2, 0.02), NAME)

    assert (found.measured.negatives, found.on_prompts.negatives) == (100, 30)
    assert found.measured.recall is not None
    assert (found.on_prompts.recall, found.text_classifier.recall) == (None, None)
    told = list(report.describe(found, requests(60, 60, 140, shift=6.0), fit.Rule(2, 0.02)))
    assert any(line.startswith("text classifier, prompts alone: no recall at 0.02") for line in told)


def test_prompts_are_split_alike_whatever_comes_beside_them() -> None:
    made = requests(41, 60, 21)

    held_out = fit.hold_out(made, seed=3)

    assert (held_out == fit.hold_out(made, seed=3)).all()
    assert (held_out[:101] == fit.hold_out(requests(41, 60), seed=3)).all()
    assert (held_out[:41].sum(), held_out[41:101].sum(), held_out[101:].sum()) == (20, 30, 10)


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ((19, 400, 0), "positive: 19 prompts are too few, at least 20 are needed"),
        ((20, 1, 400), "negative: 1 prompts and 400 benign requests leave 200 held out"),
        (
            (20, 197, 0),
            "needs 1 / rate - 1 = 99 held out, so 198 negatives in all, and 598 for an upper limit as low",
        ),
    ],
)
def test_too_few_requests_are_refused_with_the_number_that_is_needed(
    counts: tuple[int, int, int], complaint: str
) -> None:
    with pytest.raises(ProbeError) as refusal:
        fit.check_enough(*counts, fit.Rule(2, 0.01))

    assert complaint in str(refusal.value)


def test_enough_is_enough() -> None:
    fit.check_enough(20, 198, 0, fit.Rule(2, 0.01))
    fit.check_enough(20, 20, 178, fit.Rule(2, 0.01))


def test_every_figure_of_the_report_has_its_number_of_requests() -> None:
    made, rule = requests(100, 400, shift=6.0), fit.Rule(2, 0.05)
    found = fit.fit(made, rule, NAME)

    told = list(report.describe(found, made, rule))
    card = report.card_of(found, made, rule, sampled={"prompt_window": 2})

    assert told[1].startswith(f"threshold {found.probe.threshold:.4f} at 2 positions: 9 of 200 held-out")
    assert any(line.startswith("probe: recall at 0.05 ") and "n 50" in line for line in told)
    assert any(line.startswith("text classifier, prompts alone: recall at 0.05 1.00") for line in told)
    assert card["held_out"]["probe"]["recall"]["n"] == 50
    assert (card["positives"], card["negative_prompts"], card["benign_requests"]) == (100, 400, 0)


def test_prompts_of_another_length_are_remarked_on() -> None:
    made, rule = requests(40, 80), fit.Rule(2, 0.05)
    longer = made._replace(tokens=np.where(made.is_positive, 90, 12))

    told = list(report.describe(fit.fit(longer, rule, NAME), longer, rule))

    assert any("90 tokens in the median and negatives 12" in line for line in told)
