import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.calibrate.nulls import LEAST_NULLS, draw_pairs, thresholds, upper_percentile
from workers.nla.decoder import GivenFacts, PositionClass
from workers.nla.positions import TemplateIds, classify, position_class

TEMPLATE = TemplateIds(frozenset({1, 2}), frozenset({7}))
KINDS: list[PositionClass] = ["template", "prompt", "answer"]


@pytest.mark.parametrize(
    ("token_id", "phase", "expected"),
    [
        (2, "prefill", "template"),
        (2, "decode", "template"),
        (7, "prefill", "template"),
        (7, "decode", "answer"),
        (9, "prefill", "prompt"),
        (9, "decode", "answer"),
    ],
)
def test_a_position_is_the_templates_the_clients_or_the_models(
    token_id: int, phase: str, expected: str
) -> None:
    assert position_class(token_id, phase, TEMPLATE) == expected


def test_positions_are_classified_in_order() -> None:
    assert classify(GivenFacts([9, 1, 9], ["decode", "decode", "prefill"]), TEMPLATE) == [
        "answer",
        "template",
        "prompt",
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(KINDS)), min_size=1, max_size=40))
def test_readings_are_tried_on_other_documents_of_their_class_only(
    rows: list[tuple[int, PositionClass]],
) -> None:
    documents = np.array([document for document, _ in rows])
    classes = [kind for _, kind in rows]

    pairs = draw_pairs(documents, classes, partners=3)

    assert len(set(zip(pairs.rows.tolist(), pairs.partners.tolist(), strict=True))) == len(pairs.rows)
    assert (documents[pairs.rows] != documents[pairs.partners]).all()
    assert all(classes[row] == classes[partner] for row, partner in zip(*pairs, strict=True))
    assert np.bincount(pairs.rows, minlength=1).max() <= 3


def test_the_percentile_of_many_values_is_a_little_above_their_own() -> None:
    values = np.arange(1000, dtype=np.float64)

    # Binomial(1000, 0.95) is below 962 with probability 0.954, below 961 with 0.936.
    assert upper_percentile(values, np.arange(1000)) == pytest.approx(961, abs=1)


@pytest.mark.parametrize("count", [1, 5, 58])
def test_the_percentile_of_few_values_is_the_largest(count: int) -> None:
    values = np.arange(count, dtype=np.float64)[::-1]

    assert upper_percentile(values, np.arange(count)) == count - 1


def test_the_percentile_covers_the_true_one_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)

    covered = [upper_percentile(rng.random(200), np.arange(200)) >= 0.95 for _ in range(200)]

    assert np.mean(covered) >= 0.94


def test_rows_of_one_document_do_not_count_as_many() -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(100), 8)

    percentiles = []
    for _ in range(200):
        values = np.repeat(rng.random(100), 8)
        percentiles.append(upper_percentile(values, documents))

    assert np.mean(np.array(percentiles) >= 0.95) >= 0.9


def test_every_class_has_a_threshold_of_its_own_and_small_ones_the_largest() -> None:
    scores = np.concatenate([np.full(50, 0.1), np.full(50, 0.3), np.full(LEAST_NULLS - 1, 0.9)])
    classes = ["prompt"] * 50 + ["answer"] * 50 + ["template"] * (LEAST_NULLS - 1)

    assert thresholds(scores, classes, np.arange(len(scores))) == {
        "template": 0.3,
        "prompt": 0.1,
        "answer": 0.3,
    }


def test_classes_that_are_all_small_share_one_threshold() -> None:
    found = thresholds(np.array([0.1, 0.4, 0.2]), ["prompt", "answer", "answer"], np.arange(3))

    assert found == dict.fromkeys(KINDS, 0.4)


def test_no_threshold_is_below_what_the_token_alone_tells() -> None:
    assert thresholds(np.full(100, -0.5), ["answer"] * 100, np.arange(100)) == dict.fromkeys(KINDS, 0.0)
