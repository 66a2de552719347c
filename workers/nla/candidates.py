"""Choose the candidate from which the AR rebuilds the vector best; pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.engine.verbalizer import Explanation


class RoundTrip(NamedTuple):
    """The candidates of a batch of vectors, and the vectors rebuilt from them."""

    candidates: list[list[Explanation]]
    """By vector; each has the same number."""
    rebuilt: NDArray[np.float32]
    """(n, candidates, d_model)."""


class Choice(NamedTuple):
    """The chosen candidate of every vector."""

    best: NDArray[np.int64]
    """Index of the chosen candidate, (n,)."""
    rebuilt: NDArray[np.float32]
    """Vector rebuilt from the chosen candidate, (n, d_model)."""
    cosine: NDArray[np.float64]
    """Cosine of vector and rebuilt vector, (n,)."""
    margin: NDArray[np.float64] | None
    """Cosine less the second-best candidate's, (n,); None for single candidates."""


def choose(vectors: NDArray[np.float32], rebuilt: NDArray[np.float32]) -> Choice:
    """Choose the candidate with the highest cosine, the first one on ties.

    `vectors` is (n, d_model), `rebuilt` is (n, candidates, d_model).
    """
    cosines = fidelity.cosine(vectors[:, None], rebuilt)
    best = cosines.argmax(axis=1)
    ranked = np.sort(cosines, axis=1)
    return Choice(
        best=best,
        rebuilt=rebuilt[np.arange(len(vectors)), best],
        cosine=ranked[:, -1],
        margin=ranked[:, -1] - ranked[:, -2] if ranked.shape[1] > 1 else None,
    )


def agreement(candidates: Sequence[Explanation], best: int) -> float | None:
    """Return the share of candidates that expect the same next token as the best one.

    None for a single candidate, or when the best one expects no token.
    """
    expected = [
        candidate.continuation.expects if candidate.continuation else None for candidate in candidates
    ]
    if len(candidates) == 1 or expected[best] is None:
        return None
    return expected.count(expected[best]) / len(candidates)
