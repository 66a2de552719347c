"""The label head: what it learns, what it is shown, and from when on it says something."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.nla.checkpoint.labels import LabelHead, load_labels
from workers.training.config import LabelFit
from workers.training.data.dataset import Samples
from workers.training.data.labels import Kind, Register, Taxonomy
from workers.training.fit import labels as label_fit
from workers.training.fit.labels import LabelTargets

CONFIG = LabelFit(hidden=16, epochs=30, batch=32)
NEVER = 2.0


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return Taxonomy(
        version=2,
        topics={"cats": "", "dogs": "", "sums": ""},
        topic_floor=0.1,
        areas={"animals": ("cats", "dogs"), "mathematics": ("sums",)},
        registers=(Register(name="code", pattern="def"),),
        kinds=(Kind(name="fraud", pattern="scam"), Kind(name="hate", pattern="hate")),
    )


class Planted(NamedTuple):
    """Vectors whose first coordinates tell every label."""

    centred: NDArray[np.float32]
    wanted: LabelTargets


def planted(rows: int, *, seed: int = 0) -> Planted:
    rng = np.random.default_rng(seed)
    topic, register = rng.integers(3, size=rows), rng.integers(3, size=rows)
    fraud = rng.integers(2, size=rows)
    known = np.concatenate([np.eye(3)[topic], np.eye(3)[register], fraud[:, None]], axis=1) * 3
    centred = np.concatenate([known, rng.standard_normal((rows, 5))], axis=1).astype(np.float32)
    areas = np.eye(2, dtype=np.float32)[(topic == 2).astype(int)]
    kinds = np.stack([fraud, np.zeros(rows)], axis=1).astype(np.float32)
    return Planted(centred, LabelTargets(areas, topic, register, kinds))


@pytest.fixture(scope="module")
def head(taxonomy: Taxonomy) -> LabelHead:
    return label_fit.fit(*planted(600), taxonomy, CONFIG, seed=0)


def test_a_head_learns_what_vectors_tell(head: LabelHead) -> None:
    centred, wanted = planted(200, seed=1)

    scores = head.score(centred)

    assert (scores.areas.argmax(axis=1) == wanted.areas.argmax(axis=1)).mean() > 0.95
    assert (scores.topics.argmax(axis=1) == wanted.topic).mean() > 0.95
    assert (scores.registers.argmax(axis=1) == wanted.register).mean() > 0.95
    assert ((scores.kinds > 0.5) == (wanted.kinds > 0.5)).mean() > 0.95


def test_the_worker_computes_what_the_trained_network_computed(
    taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    networks: list[Any] = []
    sequential = torch.nn.Sequential

    def noted(*parts: Any) -> Any:
        networks.append(sequential(*parts))
        return networks[-1]

    monkeypatch.setattr(torch.nn, "Sequential", noted)
    centred, wanted = planted(100)

    scores = label_fit.fit(centred, wanted, taxonomy, CONFIG, seed=0).score(centred)

    network = networks[0].half().float().eval()
    logits = network(torch.from_numpy(centred)).detach()
    for found, expected in zip(
        scores,
        [*(part.softmax(dim=1) for part in logits[:, :8].split([2, 3, 3], dim=1)), logits[:, 8:].sigmoid()],
        strict=True,
    ):
        assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_the_same_seed_gives_the_same_head(taxonomy: Taxonomy, head: LabelHead) -> None:
    again = label_fit.fit(*planted(600), taxonomy, CONFIG, seed=0)

    assert (again.out_weight == head.out_weight).all()


def test_a_new_head_names_nothing_but_the_register(head: LabelHead) -> None:
    labelled = head.label(planted(5).centred)

    assert {(one.area, one.topic, one.kinds) for one in labelled} == {(None, None, ())}


def test_rows_about_something_else_teach_no_topic(taxonomy: Taxonomy) -> None:
    centred, wanted = planted(64)
    strange = wanted._replace(topic=np.full(64, len(taxonomy.topics)))

    found = label_fit.fit(centred, strange, taxonomy, CONFIG, seed=0)

    assert np.isfinite(found.score(centred).topics).all()


def test_no_head_of_a_cross_fit_sees_the_chats_that_it_labels(taxonomy: Taxonomy) -> None:
    centred, wanted = planted(400)
    documents = np.arange(400) // 4
    broken = wanted._replace(topic=np.where(documents % 2 == 1, 0, wanted.topic))

    heads, of_broken = (
        label_fit.cross_fit(centred, known, documents, taxonomy, CONFIG, seed=0)
        for known in (wanted, broken)
    )

    assert (heads[1].out_weight == of_broken[1].out_weight).all()
    assert not (heads[0].out_weight == of_broken[0].out_weight).all()


def test_thresholds_let_the_head_name_what_it_gets_right(taxonomy: Taxonomy, head: LabelHead) -> None:
    centred, wanted = planted(300, seed=2)

    chosen = label_fit.set_thresholds(head, centred, wanted, CONFIG)
    labelled = chosen.label(centred)

    truth = [list(taxonomy.areas)[index] for index in wanted.areas.argmax(axis=1)]
    named = [(one.area, area) for one, area in zip(labelled, truth, strict=True) if one.area]
    assert np.mean([found == area for found, area in named]) >= CONFIG.area_accuracy
    assert len(named) > 250
    assert chosen.names.kind_above["fraud"] < 1
    assert chosen.names.kind_above["hate"] == NEVER


def test_a_saved_head_is_the_same_head(head: LabelHead, tmp_path: Path) -> None:
    label_fit.save_labels(head, tmp_path)

    loaded = load_labels(tmp_path, d_model=head.hidden_weight.shape[1])

    assert loaded.names == head.names
    for name in ("hidden_weight", "hidden_bias", "out_weight", "out_bias"):
        assert (getattr(loaded, name) == getattr(head, name)).all()


def test_bits_become_one_column_a_kind(taxonomy: Taxonomy) -> None:
    none = np.zeros(3, np.int64)
    samples = Samples(
        vectors=np.zeros((3, 2), np.float32),
        context=np.zeros((3, 5), np.int64),
        next_tokens=np.zeros((3, 3), np.int64),
        areas=np.zeros((3, 2), np.float32),
        topic=none,
        register=none,
        kinds=np.array([0, 2, 3]),
        positions=none,
        is_answer=none,
        is_real=none,
        documents=none,
    )

    assert label_fit.wanted_of(samples, taxonomy).kinds.tolist() == [[0, 0], [0, 1], [1, 1]]


CandidateScores = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=120)


@given(rows=CandidateScores, accuracy=st.floats(0.1, 0.9))
def test_what_is_named_is_right_as_often_as_asked(rows: list[tuple[int, bool]], accuracy: float) -> None:
    scores = np.array([score / 30 for score, _ in rows])
    is_right = np.array([right for _, right in rows])

    threshold = label_fit.accuracy_threshold(scores, is_right, accuracy)

    named = scores >= threshold
    assert threshold == NEVER or (named.sum() >= 20 and is_right[named].mean() >= accuracy)


def test_the_threshold_names_as_much_as_the_accuracy_allows() -> None:
    scores = np.linspace(1, 0, 100)
    is_right = np.arange(100) < 30

    threshold = label_fit.accuracy_threshold(scores, is_right, 0.6)

    assert (scores >= threshold).sum() == 50


def test_rows_of_one_score_are_named_together_or_not_at_all() -> None:
    scores = np.repeat([0.9, 0.5], 40)
    is_right = np.array([True] * 40 + [True] * 10 + [False] * 30)

    assert label_fit.accuracy_threshold(scores, is_right, 0.7) == 0.9
    assert label_fit.accuracy_threshold(scores, is_right, 0.6) == 0.5


@given(rows=CandidateScores, rate=st.floats(0.005, 0.3))
def test_a_kind_is_named_without_cause_at_most_as_often_as_asked(
    rows: list[tuple[int, bool]], rate: float
) -> None:
    scores = np.array([score / 30 for score, _ in rows], np.float32)
    is_there = np.array([there for _, there in rows])

    threshold = label_fit.false_positive_threshold(scores, is_there, rate)

    assert threshold >= 0.5
    assert threshold == NEVER or (scores[~is_there] >= threshold).mean() <= rate


def test_a_kind_that_few_rows_or_all_have_is_never_named() -> None:
    scores = np.linspace(0, 1, 60, dtype=np.float32)

    assert label_fit.false_positive_threshold(scores, np.arange(60) < 19, 0.01) == NEVER
    assert label_fit.false_positive_threshold(scores, np.ones(60, bool), 0.01) == NEVER
