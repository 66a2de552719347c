"""Predict a vector from its read token: the mean direction of vectors read at that token; pure numpy.

Means of rare tokens are shrunk towards a prior, a ridge map from the token's embedding to the mean
direction. Tokens absent from the calibration get the prior itself.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity

Embed = Callable[[Sequence[int]], NDArray[np.float32]]
"""Maps n token ids to rows of the AR's embedding table, (n, d_model)."""
KEPT = 1500
"""Number of most frequent tokens whose means are stored: 1.7 MB at 576 dimensions."""
_PRIOR_COUNT = 2.0
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Ridge penalties to try, in multiples of the embeddings' mean variance."""


class TokenMeans(NamedTuple):
    """Fitted means, in the precision of the calibration file."""

    token_ids: NDArray[np.int64]
    """(m,), ascending."""
    token_counts: NDArray[np.int64]
    """Number of vectors behind each mean, (m,)."""
    token_means: NDArray[np.float16]
    """Means of unit vectors, (m, d_model)."""
    token_map: NDArray[np.float16]
    """Map from an embedding with a constant 1 appended to the prior, (d_model + 1, d_model)."""

    def predict(self, token_ids: Sequence[int], embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean direction at each token, (n, d_model); rows are not unit vectors."""
        ids = np.asarray(token_ids, np.int64)
        prior = _with_one(embeddings) @ self.token_map.astype(np.float64)
        place = np.minimum(np.searchsorted(self.token_ids, ids), len(self.token_ids) - 1)
        counts = np.where(self.token_ids[place] == ids, self.token_counts[place], 0)[:, None]
        sums = counts * self.token_means[place].astype(np.float64)
        return np.asarray((sums + _PRIOR_COUNT * prior) / (counts + _PRIOR_COUNT))


def fit(
    vectors: NDArray[np.float32], tokens: NDArray[np.int64], embed: Embed, *, kept: int = KEPT
) -> TokenMeans:
    """Fit on vectors (n, d_model) with read tokens (n,), n > 0."""
    ids, inverse, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    sums = np.zeros((len(ids), vectors.shape[1]))
    np.add.at(sums, inverse, fidelity.to_unit(vectors))
    means = sums / counts[:, None]
    token_map = _fit_map(embed(ids.tolist()).astype(np.float64), means, counts.astype(np.float64))
    common = np.sort(np.argsort(-counts, kind="stable")[:kept])
    return TokenMeans(
        token_ids=ids[common],
        token_counts=counts[common].astype(np.int64),
        token_means=means[common].astype(np.float16),
        token_map=token_map.astype(np.float16),
    )


def _fit_map(
    embeddings: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit the ridge map with the penalty that predicts held-out tokens best (two folds)."""
    is_held_out = np.random.default_rng(0).permutation(len(counts)) % 2 == 0

    def error(strength: float) -> float:
        total = 0.0
        for test in (is_held_out, ~is_held_out):
            fitted = _ridge(embeddings[~test], means[~test], counts[~test], strength)
            missed = np.square(_with_one(embeddings[test]) @ fitted - means[test]).sum(axis=1)
            total += float(counts[test] @ missed)
        return total

    best = min(_STRENGTHS, key=error) if len(counts) > 1 else _STRENGTHS[-1]
    return _ridge(embeddings, means, counts, best)


def _ridge(
    inputs: NDArray[np.float64], targets: NDArray[np.float64], counts: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    """Return the count-weighted ridge map; its last row is the unpenalised constant."""
    centre, middle = (np.average(side, axis=0, weights=counts) for side in (inputs, targets))
    weighted = (inputs - centre) * counts[:, None]
    gram = weighted.T @ (inputs - centre)
    penalty = strength * np.trace(gram) / len(gram) + 1e-9
    slope = np.linalg.solve(gram + penalty * np.eye(len(gram)), weighted.T @ (targets - middle))
    return np.vstack([slope, middle - centre @ slope])


def _with_one(rows: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([np.asarray(rows, np.float64), np.ones((len(rows), 1))])
