"""What a reading is judged by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training.measure.evaluation import (
    choose_best,
    one_minus_ratio,
    other_of_class,
    predict_token_means,
    surest_rows,
)


def test_the_token_baseline_predicts_each_tokens_own_mean() -> None:
    train = np.array([[1, 0], [1, 0], [0, 1]], np.float32)

    predicted = predict_token_means(train, np.array([5, 5, 6]), np.array([5, 7]), prior=0.001)

    assert predicted[0] == pytest.approx([1, 0], abs=1e-2)
    assert predicted[1] == pytest.approx(train.mean(axis=0), abs=1e-3)


def test_the_token_baseline_leans_on_the_whole_where_a_token_is_rare() -> None:
    train = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)

    rare = predict_token_means(train, np.array([5, 6, 6, 6]), np.array([5]), prior=2.0)[0]

    assert rare == pytest.approx([(1 + 2 * 0.25) / 3, 2 * 0.75 / 3])


def test_the_candidate_of_the_nearest_direction_is_chosen() -> None:
    vectors = np.array([[1, 0], [0, 2]], np.float32)
    rebuilt = np.array([[[0.1, 0], [9, 9]], [[1, 0], [1, 5]]], np.float32)

    assert choose_best(vectors, rebuilt).tolist() == [pytest.approx([0.1, 0]), [1, 5]]


@given(rows=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60))
def test_partners_are_of_the_same_class_and_used_once(rows: list[tuple[int, bool]]) -> None:
    documents = np.array([document for document, _ in rows])
    classes = np.array([int(is_answer) for _, is_answer in rows])

    partners = other_of_class(documents, classes)

    assert classes[partners].tolist() == classes.tolist()
    assert sorted(partners.tolist()) == list(range(len(rows)))


def test_partners_are_of_another_document() -> None:
    documents = np.repeat(np.arange(6), 4)
    classes = np.tile([0, 0, 1, 1], 6)

    assert (documents[other_of_class(documents, classes)] != documents).all()


def test_the_surest_rows_come_in_their_order_and_at_least_one_does() -> None:
    assert surest_rows(np.array([0.9, 0.1, 0.5, 0.8]), 0.5).tolist() == [0, 3]
    assert surest_rows(np.array([0.9, 0.1]), 0.01).tolist() == [0]


def test_what_is_explained_is_told_over_all_rows_together() -> None:
    left, total = np.array([1.0, 0.0, 3.0]), np.array([2.0, 0.1, 4.0])

    found = one_minus_ratio(left, total, np.array([0, 0, 1]), rounds=200)

    assert found.value == pytest.approx(1 - 4 / 6.1)
    assert found.low == pytest.approx(1 - 3 / 4)
    assert found.high == pytest.approx(1 - 1 / 2.1)
    assert found.n == 3


def test_documents_that_are_alike_leave_no_doubt() -> None:
    found = one_minus_ratio(np.ones(8), np.full(8, 4.0), np.repeat([0, 1], 4), rounds=50)

    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))
