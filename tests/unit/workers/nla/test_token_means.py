from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.nla import fidelity, token_means

D_MODEL = 12
TABLE = np.random.default_rng(0).standard_normal((400, D_MODEL)).astype(np.float32)
MAP = np.random.default_rng(1).standard_normal((D_MODEL, D_MODEL))


def embed(token_ids: Sequence[int]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = TABLE[np.asarray(token_ids)]
    return rows


def draw(tokens: NDArray[np.int64], *, seed: int = 2, noise: float = 1.0) -> NDArray[np.float32]:
    """Vectors around a direction that the token's embedding tells."""
    rng = np.random.default_rng(seed)
    rows = TABLE[tokens] @ MAP + 5 + noise * rng.standard_normal((len(tokens), D_MODEL))
    return np.asarray(rows, np.float32)


TOKENS = np.random.default_rng(3).integers(0, 300, 1500)


def test_a_common_tokens_mean_is_its_own() -> None:
    tokens = np.repeat(np.array([7, 8, 9]), 500)
    vectors = draw(tokens)

    means = token_means.fit(vectors, tokens, embed)

    own = fidelity.to_unit(vectors[tokens == 8]).mean(axis=0)
    assert means.predict([8], embed([8]))[0] == pytest.approx(own, abs=5e-3)
    assert means.token_ids.tolist() == [7, 8, 9]
    assert means.token_counts.tolist() == [500] * 3


def test_a_rare_tokens_mean_leans_on_the_prior() -> None:
    vectors = draw(TOKENS)
    means = token_means.fit(vectors, TOKENS, embed)
    stored = dict(zip(means.token_ids.tolist(), means.token_means.astype(float), strict=True))
    counts = dict(zip(means.token_ids.tolist(), means.token_counts.tolist(), strict=True))
    token = int(TOKENS[0])

    predicted = means.predict([token], embed([token]))[0]

    prior = np.append(embed([token])[0], 1) @ means.token_map.astype(float)
    share = counts[token] / (counts[token] + 2)
    assert predicted == pytest.approx(share * stored[token] + (1 - share) * prior)


def test_a_token_that_was_never_seen_gets_what_its_embedding_tells() -> None:
    means = token_means.fit(draw(TOKENS), TOKENS, embed)
    unseen = np.arange(300, 400)
    vectors = draw(unseen, seed=4)
    baseline = fidelity.fve_baseline(vectors)

    fves = fidelity.fve(vectors, means.predict(unseen.tolist(), embed(unseen.tolist())), baseline=baseline)

    assert fves.mean() > 0.5
    shuffled = means.predict(unseen[::-1].tolist(), embed(unseen[::-1].tolist()))
    assert fidelity.fve(vectors, shuffled, baseline=baseline).mean() < 0


def test_only_the_commonest_tokens_are_kept_in_half_precision() -> None:
    means = token_means.fit(draw(TOKENS), TOKENS, embed, kept=10)

    counts = np.bincount(TOKENS)
    assert len(means.token_ids) == 10
    assert (np.diff(means.token_ids) > 0).all()
    assert means.token_counts.min() == np.sort(counts)[-10]
    assert {str(array.dtype) for array in (means.token_means, means.token_map)} == {"float16"}


def test_one_token_is_enough() -> None:
    tokens = np.full(5, 4)

    predicted = token_means.fit(draw(tokens), tokens, embed).predict([4, 5], embed([4, 5]))

    assert np.isfinite(predicted).all()


def test_fve_beyond_the_token_is_the_share_of_what_it_leaves_open() -> None:
    beyond = fidelity.fve_beyond_token(np.array([0.5, 0.7, 0.2, 1.0]), np.array([0.5, 0.4, 0.4, 1.0]))

    assert beyond == pytest.approx([0, 0.5, -1 / 3, 1])
    # A token that tells all leaves next to nothing open, and nothing is divided by zero.
    assert np.isfinite(fidelity.fve_beyond_token(np.array([0.9]), np.array([1.0]))).all()


def test_a_row_whose_token_says_nearly_all_cannot_drown_an_average() -> None:
    beyond = fidelity.fve_beyond_token(np.array([0.5, 0.9, 0.99]), np.array([0.99, 0.98, 0.98]))

    assert beyond == pytest.approx([-1.0, -1.0, 0.5])
