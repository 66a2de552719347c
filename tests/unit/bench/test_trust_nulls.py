"""The nulls of bench-trust: how they are made, and what the worker's rule makes of them."""

import numpy as np
import pytest

from bench.trust.nulls import flags, vectors
from bench.trust.reading import Incidents, Read
from service.store.write.evidence import Rate
from workers.judge.calibration import InForce
from workers.judge.concepts import ConceptSet, load_concepts
from workers.judge.flags import FlagRule
from workers.judge.matching import ConceptMatcher
from workers.training.data.dataset import Samples

DOCUMENTS, EACH, WIDTH = 12, 8, 6


@pytest.fixture
def samples() -> Samples:
    """Return chats of eight rows each, four of the prompt and four of the answer; one is no user's."""
    n = DOCUMENTS * EACH
    documents = np.repeat(np.arange(DOCUMENTS), EACH)
    return Samples(
        vectors=np.random.default_rng(0).normal(size=(n, WIDTH)).astype(np.float32),
        context=np.tile(np.arange(EACH)[:, None], (DOCUMENTS, 12)) % 3,
        next_tokens=np.zeros((n, 3), np.int64),
        areas=np.zeros((n, 2), np.float32),
        topic=np.zeros(n, np.int64),
        register=np.zeros(n, np.int64),
        kinds=np.zeros(n, np.int64),
        positions=np.tile(np.arange(EACH), DOCUMENTS),
        is_answer=np.tile((np.arange(EACH) >= EACH // 2).astype(np.int64), DOCUMENTS),
        is_real=(documents > 0).astype(np.int64),
        documents=documents,
    )


def test_requests_have_two_prompt_and_three_answer_positions_in_order(samples: Samples) -> None:
    rows = vectors.choose(samples, DOCUMENTS)

    assert rows.shape == (DOCUMENTS - 1, 5)
    assert (samples.documents[rows] == samples.documents[rows[:, :1]]).all()
    assert samples.is_answer[rows].tolist() == [[0, 0, 1, 1, 1]] * len(rows)
    assert (np.diff(samples.positions[rows], axis=1) > 0).all()
    assert 0 not in samples.documents[rows]


def test_shuffled_vectors_are_of_other_requests_and_the_tokens_stay(samples: Samples) -> None:
    plain = vectors.benign(samples, vectors.choose(samples, 8))

    found = vectors.shuffled(plain)

    for place in range(5):
        mine, theirs = plain.vectors[:, place], found.vectors[:, place]
        assert not (mine == theirs).all(axis=1).any()
        assert sorted(map(tuple, mine.tolist())) == sorted(map(tuple, theirs.tolist()))
    assert (found.tokens == plain.tokens).all()


def test_same_token_vectors_are_of_another_request_at_the_same_token(samples: Samples) -> None:
    rows = vectors.choose(samples, 8)
    plain = vectors.benign(samples, rows)

    found = vectors.same_token(plain, samples, rows)

    for (request, place), row in np.ndenumerate(rows):
        source = int(np.flatnonzero((samples.vectors == found.vectors[request, place]).all(axis=1))[0])
        assert samples.documents[source] != samples.documents[row]
        assert samples.tokens[source] == samples.tokens[row]
        assert samples.is_answer[source] == samples.is_answer[row]


def test_random_and_mean_vectors_are_as_long_as_the_benign_ones(samples: Samples) -> None:
    plain = vectors.benign(samples, vectors.choose(samples, 8))
    layer_mean = np.arange(1.0, WIDTH + 1)

    made = vectors.random(plain), vectors.mean(plain, layer_mean)

    for one in made:
        lengths = np.linalg.norm(one.vectors, axis=-1)
        np.testing.assert_allclose(lengths, np.linalg.norm(plain.vectors, axis=-1), rtol=1e-5)
    cosines = made[1].vectors @ layer_mean / np.linalg.norm(layer_mean)
    assert (cosines / np.linalg.norm(made[1].vectors, axis=-1) > 0.99).all()


CONCEPTS = """
version: 2
concepts:
  - name: weapons
    version: 1
    description: Firearms.
    severity: critical
    matchers: [{regex: 'guns?'}]
"""


class NoEmbedder:
    """No concept of the test is semantic."""

    def embed(self, texts: object) -> np.ndarray:
        """Never called."""
        raise AssertionError(texts)


@pytest.fixture
def concepts(tmp_path_factory: pytest.TempPathFactory) -> ConceptSet:
    """Return one concept."""
    path = tmp_path_factory.mktemp("concepts") / "concepts.yaml"
    path.write_text(CONCEPTS)
    return load_concepts(path)


def rule(concepts: ConceptSet, *, judged: int, calibrated: bool = True) -> flags.Rule:
    """Return a rule that two of the first ``judged`` positions meet."""
    own = FlagRule(
        severity="critical",
        positions_required=2,
        calibrated=Rate(0.0, 0.003, 1000) if calibrated else None,
        positions_judged=judged,
    )
    in_force = InForce({"weapons": own}, {}, "digest", None, frozenset())
    return flags.Rule(ConceptMatcher(concepts, NoEmbedder(), {}), in_force)


def read(text: str, *, verified: bool = True) -> Read:
    return Read(text, 0.5, 0.5, verified, {})


def of_requests(count: int) -> Incidents:
    return Incidents(
        np.ones((count, 3, 2), np.float32),
        np.zeros((count, 3), np.int64),
        np.zeros((count, 3), np.uint8),
        np.tile(np.array([4, 7, 9]), (count, 1)),
    )


def test_a_request_is_flagged_where_enough_verified_positions_match(concepts: ConceptSet) -> None:
    reads = [
        [read("a gun"), read("guns"), read("tea")],
        [read("a gun"), read("guns", verified=False), read("tea")],
        [read("a gun"), read("tea"), read("tea")],
    ]

    found = flags.flags(rule(concepts, judged=3), of_requests(3), reads)

    assert found[:, 0].tolist() == [True, False, False]


def test_a_flag_that_needs_a_later_position_than_the_judged_ones_is_a_lead(concepts: ConceptSet) -> None:
    reads = [[read("a gun"), read("tea"), read("guns")]]

    assert not flags.flags(rule(concepts, judged=2), of_requests(1), reads).any()
    assert not flags.flags(rule(concepts, judged=3, calibrated=False), of_requests(1), reads).any()
    assert flags.flags(rule(concepts, judged=3), of_requests(1), reads).all()


def test_a_null_above_the_limit_misses_its_bar_and_benign_requests_have_none() -> None:
    reads = [[read("tea")]] * 100
    few, many = (np.arange(100)[:, None] < flagged for flagged in (2, 3))

    figures = [
        flags.figure(name, flagged, ["weapons"], reads)
        for name, flagged in (("benign", many), ("random", few), ("mean", many))
    ]
    bars = flags.judge(figures)

    assert [bar.is_passed for bar in bars] == [True, False]
    assert figures[0].by_concept == {"weapons": 3}
    assert "(2 of 100)" in bars[0].found
    assert figures[1].limit == pytest.approx(0.0616, abs=1e-3)
    assert "MISSED" in flags.text(figures, bars)
