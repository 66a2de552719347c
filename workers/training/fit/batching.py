"""The order of training examples: shuffled, with similar lengths in a batch; pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_POOL_BATCHES = 16
"""Batches sorted by length together: more of them save padding, fewer keep the order random."""


def batch_order(lengths: Sequence[int], *, batch: int, examples: int, seed: int) -> list[NDArray[np.int64]]:
    """Return batches of row numbers, `examples` rows in total, repeating the rows as often as needed.

    Equal arguments give the same order, so a resumed run continues at its batch number.
    """
    rng = np.random.default_rng(seed)
    rounds = -(-examples // len(lengths))
    rows = np.concatenate([rng.permutation(len(lengths)) for _ in range(rounds)])[:examples]
    batches: list[NDArray[np.int64]] = []
    measure = np.asarray(lengths)
    for start in range(0, examples, batch * _POOL_BATCHES):
        pool = rows[start : start + batch * _POOL_BATCHES]
        pool = pool[np.argsort(measure[pool], kind="stable")]
        cuts = [pool[index : index + batch] for index in range(0, len(pool), batch)]
        batches += [cuts[index] for index in rng.permutation(len(cuts))]
    return batches
