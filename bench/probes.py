"""Linear probes on the vectors, the reference for the accuracy of readings; pure."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Values = NDArray[np.float64]
TOKENS: Final = 4000
"""Number of most frequent next tokens that the probe can predict."""
_STRENGTHS: Final = (1e-3, 1e-2, 1e-1, 1.0)
_TEST_SHARE: Final = 5
"""One in this many documents is held out to choose the ridge penalty."""


class Probes(NamedTuple):
    """Ridge maps from centred vectors and a constant to one-hot next tokens, and to areas."""

    token_ids: NDArray[np.int64]
    token_weights: Values
    area_weights: Values

    def next_tokens(self, centred: Rows) -> NDArray[np.int64]:
        """Return the likeliest next token of every row, (n,)."""
        return np.asarray(self.token_ids[(_with_one(centred) @ self.token_weights).argmax(axis=1)])

    def areas(self, centred: Rows) -> NDArray[np.int64]:
        """Return the likeliest area of every row, (n,)."""
        return np.asarray((_with_one(centred) @ self.area_weights).argmax(axis=1), np.int64)


def fit(centred: Rows, next_tokens: NDArray[np.int64], areas: Rows, documents: NDArray[np.int64]) -> Probes:
    """Fit both probes on training rows, with penalties chosen on held-out documents.

    `centred` is (n, d), `next_tokens` and `documents` are (n,), `areas` is (n, areas).
    """
    is_test = documents % _TEST_SHARE == 0
    if is_test.all() or not is_test.any():
        is_test = np.arange(len(documents)) % _TEST_SHARE == 0
    ids, counts = np.unique(next_tokens, return_counts=True)
    token_ids = np.sort(ids[np.argsort(-counts, kind="stable")[:TOKENS]])
    truth, inputs = areas.argmax(axis=1), centred[~is_test]

    def token_score(strength: float) -> float:
        weights = _ridge(inputs, _token_sums(inputs, next_tokens[~is_test], token_ids), strength)
        probe = Probes(token_ids, weights, weights)
        return float((probe.next_tokens(centred[is_test]) == next_tokens[is_test]).mean())

    def area_score(strength: float) -> float:
        weights = _ridge(inputs, _with_one(inputs).T @ areas[~is_test], strength)
        return float((Probes(token_ids, weights, weights).areas(centred[is_test]) == truth[is_test]).mean())

    token_strength, area_strength = max(_STRENGTHS, key=token_score), max(_STRENGTHS, key=area_score)
    return Probes(
        token_ids,
        _ridge(centred, _token_sums(centred, next_tokens, token_ids), token_strength),
        _ridge(centred, _with_one(centred).T @ areas, area_strength),
    )


def _ridge(inputs: Rows, products: Values, strength: float) -> Values:
    """Return weights (d + 1, k) from inputs (n, d) and their products with the targets (d + 1, k)."""
    design = _with_one(inputs)
    penalty = np.full(design.shape[1], strength * len(design))
    # The constant is not penalised, except for a tiny value that keeps the system solvable.
    penalty[-1] = 1e-9
    return np.asarray(np.linalg.solve(design.T @ design + np.diag(penalty), products))


def _token_sums(inputs: Rows, tokens: NDArray[np.int64], token_ids: NDArray[np.int64]) -> Values:
    """Return the product of inputs and one-hot tokens, (d + 1, k), without building one-hot rows."""
    place = np.minimum(np.searchsorted(token_ids, tokens), len(token_ids) - 1)
    known = token_ids[place] == tokens
    sums = np.zeros((len(token_ids), inputs.shape[1] + 1))
    np.add.at(sums, place[known], _with_one(inputs[known]))
    return sums.T


def _with_one(rows: Rows) -> Values:
    return np.hstack([np.asarray(rows, np.float64), np.ones((len(rows), 1))])
