import numpy as np
import pytest

from bench import fidelity_figures, fidelity_words, quotes
from bench.fidelity_data import to_source
from bench.fidelity_read import Mode, Reads
from workers.calibrate.nulls import Pairs
from workers.calibrate.summary import Evidence, Vectors
from workers.nla.candidates import RoundTrip
from workers.nla.claims import Continuation
from workers.nla.decoder import PositionClass
from workers.nla.engine.verbalizer import Explanation

N, WIDTH = 8, 16
VECTORS = np.eye(N, WIDTH, dtype=np.float32)
DOCUMENTS = np.repeat(np.arange(4), 2)
CLASSES: list[PositionClass] = ["prompt", "answer"] * 4
WORDS = ["<s>", " the", " cat", " sat", " on", " mats"]
CONTEXT = np.tile(np.array([1, 2, 3, 4, 5]), (N, 1))


def decode(ids: list[int]) -> str:
    return "".join(WORDS[token] for token in ids)


def said(quote: str, expects: str) -> Explanation:
    return Explanation("text", well_formed=True, continuation=Continuation(expects, quote))


TRUE, FALSE = said(" the cat sat on", " on"), said(" a cat sat on", " the")


def evidence(rows: np.ndarray, share: float, count: int = 1) -> Evidence:
    """Candidates of which the last rebuilds the vectors up to `share`, and the others nothing."""
    rebuilt = np.zeros((len(rows), count, WIDTH), np.float32)
    rebuilt[:, :, -1] = 1
    rebuilt[:, -1] = share * VECTORS[rows]
    rebuilt[:, -1, -1] = (1 - share**2) ** 0.5
    candidates = [[FALSE] * (count - 1) + [TRUE] for _ in rows]
    vectors = Vectors(VECTORS[rows], DOCUMENTS[rows])
    # What the token alone says: FVE 0.75.
    expected = 0.875 * VECTORS[rows].astype(np.float64)
    expected[:, -2] = (1 - 0.875**2) ** 0.5
    return Evidence(vectors, [CLASSES[row] for row in rows], expected, RoundTrip(candidates, rebuilt))


def reads(verified: dict[str, np.ndarray] | None = None) -> Reads:
    every = np.arange(N)
    source = to_source(
        {
            "vectors": VECTORS,
            "documents": DOCUMENTS,
            "context": CONTEXT,
            "next_tokens": np.full(N, 4),
            "is_answer": np.arange(N) % 2,
            "positions": np.array([10, 20, 31, 32, 63, 64, 200, 300]),
        },
        "toy",
    )
    inside = Pairs(every, every ^ 1)
    best = Mode(evidence(every, 0.9, 2), evidence(every, 0.3, 2), evidence(every, 0.95, 2))
    greedy = Mode(evidence(every, 0.8), evidence(every, 0.3), evidence(every, 0.3))
    return Reads(
        source=source,
        best=best,
        greedy=greedy,
        pairs=Pairs(every, np.roll(every, 2)),
        inside=inside,
        random=evidence(every[:3], 0.1),
        mean=evidence(every[:2], 0.2),
        empty=evidence(every, 0.4).trip.rebuilt[:, 0],
        true=evidence(every, 0.99).trip.rebuilt[:, 0],
        verified=verified or {},
    )


def fve(share: float) -> float:
    """Of a rebuilt unit vector with that cosine, at a baseline of 1."""
    return 1 - 2 * (1 - share)


def test_every_reading_and_null_has_its_figures() -> None:
    table = fidelity_figures.measure(reads(), np.zeros(WIDTH), baseline=1.0, rounds=20)

    expected = {
        "best_fve": fve(0.9),
        "greedy_fve": fve(0.8),
        "one_sampled_fve": fve(0.0),
        "empty_fve": fve(0.4),
        "true_text_fve": fve(0.99),
        "token_mean_fve": 0.75,
        "layer_mean_fve": 0.0,
        "same_token_best_fve": fve(0.3),
        "permuted_best_fve": fve(0.95),
        "random_vector_fve": fve(0.1),
        "mean_vector_fve": fve(0.2),
        # 0.25 is left open by the token's mean, and 0.2 by the best reading.
        "best_beyond_token": 1 - 0.2 / 0.25,
        "greedy_beyond_token": 1 - 0.4 / 0.25,
        "won_against_same_token_best": 1.0,
        "won_against_permuted_best": 0.0,
    }
    assert {name: table[name].value for name in expected} == pytest.approx(expected, abs=1e-6)
    # Another document's rebuilt vector has nothing of this one.
    assert table["shuffled_best_fve"].value == pytest.approx(fve(0.0))
    assert table["best_fve"].n == N


def test_classes_and_lengths_stand_apart() -> None:
    table = fidelity_figures.measure(reads(), np.zeros(WIDTH), baseline=1.0, rounds=20)

    counts = {name.partition("/")[2]: table[name].n for name in table if name.startswith("best_fve/")}
    assert counts == {
        "prompt": 4,
        "answer": 4,
        "0-31 tokens": 3,
        "32-63 tokens": 2,
        "64-127 tokens": 1,
        "128- tokens": 2,
    }
    assert table["same_token_best_fve/prompt"].n == 4


def test_verified_nulls_are_counted_by_class() -> None:
    verdict = np.array([True, False] * 4)
    table = fidelity_figures.measure(
        reads({"same_token": verdict, "random": np.zeros(3, bool)}),
        np.zeros(WIDTH),
        baseline=1.0,
        rounds=20,
    )

    shares = {name: table[name].value for name in table if name.startswith("verified")}
    assert shares == {
        "verified_same_token": 0.5,
        "verified_same_token/prompt": 1.0,
        "verified_same_token/answer": 0.0,
        "verified_random": 0.0,
        "verified_random/prompt": 0.0,
        "verified_random/answer": 0.0,
    }


def test_words_are_those_of_the_best_candidate() -> None:
    table = fidelity_words.measure(reads(), decode, rounds=20)

    assert table["expects_right_best"].value == 1.0
    assert table["well_formed_best"].value == 1.0
    assert table["quote_best/content"].value == 1.0
    assert (table["quote_best/content 3"].n, table["quote_best/function 4"].n) == (N, N)
    assert "quote_best/content 4" not in table


def test_a_reading_that_lost_the_format_expects_and_quotes_nothing() -> None:
    lost = Explanation("lost", well_formed=False)

    assert fidelity_words.expects_right([lost, TRUE], [" on", " on"]).tolist() == [0.0, 1.0]


def test_quoted_words_are_compared_from_the_read_token_on() -> None:
    found = list(quotes.compare(["You don't know, the Cat sat"], ["we don\u2019t see the dog sat"]))

    assert [(one.distance, one.is_function, one.is_right) for one in found] == [
        (1, False, True),
        (2, False, False),
        (3, True, True),
        (4, False, False),
    ]


def test_words_that_were_not_quoted_are_wrong_and_empty_texts_count_nothing() -> None:
    assert [one.is_right for one in quotes.compare(["sat"], ["the cat sat"])] == [True, False, False]
    assert list(quotes.compare(["sat"], ["..."])) == []
    assert quotes.measure(["sat"], ["..."], np.array([0]), name="quote", rounds=5) == {}
