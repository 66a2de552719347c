"""Which of a vector's candidate readings is kept: the one that rebuilds it best; pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.engine.verbalizer import Explanation


class RoundTrip(NamedTuple):
    """What a batch of vectors said, and what was rebuilt from that."""

    candidates: list[list[Explanation]]
    """As many for every vector."""
    rebuilt: NDArray[np.float32]
    """(n, candidates, d_model)."""


class Choice(NamedTuple):
    """One candidate of every vector."""

    best: NDArray[np.int64]
    """Which one, (n,)."""
    rebuilt: NDArray[np.float32]
    """What it rebuilds, (n, d_model)."""
    cosine: NDArray[np.float64]
    """Of that with the vector, (n,)."""
    margin: NDArray[np.float64] | None
    """Cosine less that of the second best, (n,); None for single candidates."""


def choose(vectors: NDArray[np.float32], rebuilt: NDArray[np.float32]) -> Choice:
    """Choose by cosine among (n, candidates, d_model); the first of equals."""
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
    """Return the share of candidates that expect what the best one does.

    None for a single one, and where the best says nothing about that.
    """
    expected = [said.continuation.expects if said.continuation else None for said in candidates]
    if len(candidates) == 1 or expected[best] is None:
        return None
    return expected.count(expected[best]) / len(candidates)
