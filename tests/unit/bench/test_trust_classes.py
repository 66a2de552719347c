"""Traffic classes of bench-trust: requests, positions, and figures of made-up scores."""

import random

import numpy as np

from bench.trust import class_scores, classes
from bench.trust.class_scores import ANOMALY, CASCADE, KIND, TEXT

DRAWS = random.Random(0)  # noqa: S311  # a choice of data, not a secret
RNG = np.random.default_rng(0)
BENIGN = RNG.random(1000)


def rows_of(found: int) -> list[class_scores.ClassFigure]:
    """Return the figures of all classes; the first ones are found by their kind."""
    rows = []
    for number, name in enumerate(classes.CLASSES):
        kind = np.full(50, 2.0) if number < found else RNG.random(50)
        table = class_scores.with_cascade({KIND: (kind, BENIGN), TEXT: (np.full(50, 2.0), BENIGN)})
        rows += [class_scores.figure(method, name, *scores) for method, scores in table.items()]
    return rows


def test_the_bar_counts_the_classes_that_the_cascade_finds() -> None:
    enough, benign = class_scores.judge(rows_of(4))

    assert enough.is_passed
    assert enough.found.startswith(f"4: {classes.CODE}, ")
    assert "of 500)" in benign.found
    assert not class_scores.judge(rows_of(3))[0].is_passed


def test_a_text_classifier_is_a_baseline_and_no_part_of_the_cascade() -> None:
    by_method = {row.method: row for row in rows_of(0) if row.kind == classes.CODE}

    assert by_method[TEXT].recall.share == 1.0
    assert by_method[CASCADE].recall.share < 0.1


def test_the_cascade_of_one_method_ranks_as_that_method() -> None:
    positive = RNG.random(20) + 0.5
    alone = class_scores.figure(ANOMALY, "base64", positive, BENIGN)
    table = class_scores.with_cascade({ANOMALY: (positive, BENIGN)})

    fused = class_scores.figure(CASCADE, "base64", *table[CASCADE])

    assert fused.recall == alone.recall


def test_a_kind_counts_where_as_many_positions_agree_as_a_flag_needs() -> None:
    code = np.array([[0.9, 0.1, 0.1], [0.9, 0.8, 0.1]])

    np.testing.assert_allclose(class_scores.kind_scores({"code": code}, ("code",)), [0.1, 0.8])


def test_any_of_several_kinds_speaks_for_a_class() -> None:
    of_kinds = {"fraud": np.full((1, 2), 0.5), "hate": np.full((1, 2), 0.5)}

    assert class_scores.kind_scores(of_kinds, ("fraud", "hate")).tolist() == [0.75]


def test_prompt_and_answer_give_as_many_positions_in_every_request() -> None:
    chat = classes.choose(range(100), 40, first=20, rng=DRAWS)

    assert chat is not None
    assert len(chat.positions) == classes.PROMPT_POSITIONS + classes.ANSWER_POSITIONS
    assert 39 in chat.positions
    assert min(chat.positions) >= 20
    assert sum(place >= 40 for place in chat.positions) == classes.ANSWER_POSITIONS
    assert max(chat.positions) < 40 + classes.ANSWER_TOKENS
    assert len(chat.tokens) == max(chat.positions) + 1


def test_a_chat_without_enough_positions_is_left_out() -> None:
    assert classes.choose(range(43), 40, first=20, rng=DRAWS) is None
    assert classes.choose(range(100), 22, first=20, rng=DRAWS) is None


def test_made_up_people_keep_the_words_of_the_request() -> None:
    text = "Write a poem about rain."

    assert all(text in classes.made_up_person(text, DRAWS) for _ in range(20))


def test_sources_that_ask_for_harm_are_told_by_their_names() -> None:
    assert classes.is_harmful_source("pyrit/datasets/seed_datasets/local/adv_bench.prompt")
    assert not classes.is_harmful_source("inspect_evals/writingbench/benchmark_all.jsonl")


def test_a_chat_carries_a_kind_if_any_of_its_rows_does() -> None:
    documents, kinds = np.array([7, 7, 8]), np.array([0b00, 0b10, 0b01])

    assert classes.labelled(documents, kinds, 1) == {7}
