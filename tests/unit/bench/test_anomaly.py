"""The traffic of bench-anomaly is what its names say, and its figures are those of their definitions."""

import base64
import random

import numpy as np
import pytest

from bench.anomaly import Judged, area, requests_found, share
from bench.anomaly_read import Traffic, join
from bench.anomaly_traffic import shuffle_characters, shuffle_words, strange_requests
from workers.judge.request_anomalies import RequestNull

TEXTS = [f"Please explain number {number} of the list to me" for number in range(40)]


def test_strange_requests_are_made_of_benign_ones() -> None:
    requests = strange_requests(TEXTS, 10, {"suffix": lambda text, _: f"{text} !"}, seed=0)

    by_kind: dict[str, list[str]] = {}
    for request in requests:
        by_kind.setdefault(request.kind, []).append(request.text)
    assert {len(texts) for texts in by_kind.values()} == {10}
    assert all(base64.b64decode(text).decode() in TEXTS for text in by_kind["base64"])
    assert all(text.removesuffix(" !") in TEXTS for text in by_kind["suffix"])
    assert set(by_kind) >= {"Cyrillic", "CJK", "Arabic", "random bytes"}
    assert requests == strange_requests(TEXTS, 10, {"suffix": lambda text, _: f"{text} !"}, seed=0)


def test_shuffling_keeps_what_is_shuffled() -> None:
    rng = random.Random(0)  # noqa: S311  # a choice of data, not a secret

    assert sorted(shuffle_characters(TEXTS[0], rng)) == sorted(TEXTS[0])
    assert sorted(shuffle_words(TEXTS[0], rng).split()) == sorted(TEXTS[0].split())


def test_the_area_is_how_often_a_strange_request_scores_higher() -> None:
    figure = area(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0, 4.0]))

    assert figure.value == pytest.approx((1 + 0.5 + 3) / 8)
    assert figure.lower <= figure.value <= figure.upper
    assert figure.requests == 2
    assert area(np.ones(9), np.zeros(9))[:3] == (1.0, 1.0, 1.0)


def test_a_window_takes_the_last_rows_of_each_request() -> None:
    judged = Judged(np.array([1.0, 0.01, 1.0, 1.0]), np.array([0, 0, 0, 1]), np.array([2, 1, 0, 0]))

    assert judged.scores(1).tolist() == [0.0, 0.0]
    assert judged.scores(2)[0] == pytest.approx(-np.log(0.01) / 2)
    assert share(judged, 0.05).value == pytest.approx(0.25)


def test_a_request_is_found_by_its_own_p_value_among_benign_requests() -> None:
    null = RequestNull(np.random.default_rng(0).uniform(0.01, 1, (400, 2)).astype(np.float32))
    judged = Judged(np.array([0.001, 0.001, 0.9, 0.03]), np.array([0, 0, 1, 1]), np.array([1, 0, 0, 1]))

    last, both = (requests_found(judged, null, window, 0.05) for window in (1, 2))

    assert (last.value, last.requests) == (0.5, 2)
    assert both.value == 0.5  # the mean of both rows of the second is usual
    assert last.lower < last.value < last.upper


def test_requests_of_several_parts_stay_distinct() -> None:
    def part(documents: list[int]) -> Traffic:
        places = np.arange(len(documents))
        vectors = np.ones((len(documents), 2), np.float32)
        return Traffic(vectors, np.array(documents), places, places, places.astype(np.uint8))

    assert join([part([5, 5, 7]), part([5])]).documents.tolist() == [0, 0, 1, 2]
