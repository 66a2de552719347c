"""Which text belongs to which vector in the trainings."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.nla.claims import READS
from workers.training.config import Adaptation, Winners
from workers.training.data.material import Material
from workers.training.data.targets import AvExample, ReadingWriter
from workers.training.fit import tasks
from workers.training.fit.reconstructor import Reconstructor
from workers.training.fit.verbalizer import Verbalizer
from workers.training.measure.readings import Candidates

WINNERS = Winners(learning_rate=1e-3, max_examples=8, true_share=0.0)


class NotedBatches:
    """Stands for either half: notes what it is trained on."""

    def __init__(self) -> None:
        self.texts: list[Any] = []
        self.vectors: list[float] = []

    def parameters(self) -> dict[str, Any]:
        return {}

    def loss(self, texts: Sequence[Any], vectors: Any, _: object = None) -> float:
        self.texts += texts
        self.vectors += vectors[:, 0].tolist()
        return 0.0


@pytest.fixture
def noted() -> NotedBatches:
    return NotedBatches()


def material(writer: ReadingWriter, rows: int = 6) -> Material:
    context = np.tile(writer.encode("What is 1 plus")[:4], (rows, 1))
    context[:, -1] = np.arange(rows) + 100
    vectors = np.arange(rows, dtype=np.float32)[:, None]
    return Material(["An answer."] * rows, context, np.arange(rows) + 200, vectors, vectors)


def said(writer: ReadingWriter, word: str) -> list[int]:
    return [7, *writer.encode(READS), *writer.encode(word)]


def test_a_winner_keeps_its_words_and_gets_the_true_next_token(toy_writer: ReadingWriter) -> None:
    known = material(toy_writer)

    won = tasks.winner(toy_writer, known, 2, said(toy_writer, "kittens"))

    assert won is not None
    assert won.answer[0] == known.next_tokens[2]
    assert won.answer[won.tail] == toy_writer.encode("kittens")
    assert won.prompt == toy_writer.prompt(102, "An answer.")
    assert tasks.winner(toy_writer, known, 2, [7, 8, 9]) is None


def test_the_verbalizer_is_trained_on_the_reading_of_the_highest_cosine(
    toy_writer: ReadingWriter, noted: NotedBatches
) -> None:
    known, rows = material(toy_writer), np.array([1, 4])
    answers = [said(toy_writer, "cat"), said(toy_writer, "dogs")]
    found = [Candidates(answers, ["", ""], [True, True])] * 2

    task = tasks.winners_task(
        cast("Verbalizer", noted),
        toy_writer,
        known,
        rows,
        found,
        np.array([[0.1, 0.9], [0.8, 0.2]]),
        WINNERS,
    )
    task.loss(np.array([0, 1]), np.random.default_rng(0))

    examples = cast("list[AvExample]", noted.texts)
    assert [toy_writer.decode(one.answer[one.tail]) for one in examples] == ["dogs", "cat"]
    assert noted.vectors == [1, 4]
    assert task.check() == {"winners": 2}


def test_readings_that_lost_the_format_do_not_win(toy_writer: ReadingWriter, noted: NotedBatches) -> None:
    known, rows = material(toy_writer), np.array([1, 4])
    found = [Candidates([[7, 8]], [""], [False]), Candidates([said(toy_writer, "cat")], [""], [True])]

    task = tasks.winners_task(
        cast("Verbalizer", noted), toy_writer, known, rows, found, np.ones((2, 1), np.float32), WINNERS
    )
    task.loss(np.array([0]), np.random.default_rng(0))

    assert len(task.lengths) == 1
    assert noted.vectors == [4]


def test_where_no_reading_won_the_true_ones_are_trained_on(
    toy_writer: ReadingWriter, noted: NotedBatches
) -> None:
    known, rows = material(toy_writer), np.array([1, 4])
    found = [Candidates([[7, 8]], [""], [False])] * 2

    task = tasks.winners_task(
        cast("Verbalizer", noted), toy_writer, known, rows, found, np.ones((2, 1), np.float32), WINNERS
    )
    task.loss(np.array([0, 1]), np.random.default_rng(0))

    assert noted.texts == [tasks.true_example(toy_writer, known, row) for row in (1, 4)]
    assert task.check() == {"winners": 0}


@pytest.mark.parametrize("true_share", [0.0, 1.0])
def test_every_reading_is_trained_towards_its_own_vector(
    true_share: float, toy_writer: ReadingWriter, noted: NotedBatches
) -> None:
    known = material(toy_writer)
    sequences = [[row, place] for row in (2, 5) for place in range(3)]
    config = Adaptation(learning_rate=1e-3, max_examples=8, vectors=2, candidates=3, true_share=true_share)

    task = tasks.adaptation_task(
        cast("Reconstructor", noted), toy_writer, sequences, known.vectors[[2, 5]], known, config
    )
    task.loss(np.array([5, 0, 2]), np.random.default_rng(0))

    if true_share:
        true = tasks.true_sequences(toy_writer, known)
        assert noted.texts == [true[int(row)] for row in noted.vectors]
    else:
        assert noted.texts == [[5, 2], [2, 0], [2, 2]]
        assert noted.vectors == [5, 2, 2]


@given(total=st.integers(0, 300), count=st.integers(0, 300))
def test_rows_are_spread_over_the_whole(total: int, count: int) -> None:
    rows = tasks.spread(total, count)

    assert len(rows) == min(total, count)
    assert sorted(set(rows.tolist())) == rows.tolist()
    assert all(0 <= row < total for row in rows)
