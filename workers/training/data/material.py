"""Rows of one split with all that texts are made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Material(NamedTuple):
    """Rows of one split with all that texts are made of."""

    sentences: Sequence[str]
    """The label head's first sentence of every row."""
    context: NDArray[np.int64]
    next_tokens: NDArray[np.int64]
    """(n,)"""
    vectors: NDArray[np.float32]
    """(n, d), raw."""
    centred: NDArray[np.float32]
    """(n, d), as the projector takes them."""

    def take(self, rows: NDArray[np.int64]) -> "Material":
        """Return the chosen rows."""
        return Material(
            [self.sentences[row] for row in rows],
            self.context[rows],
            self.next_tokens[rows],
            self.vectors[rows],
            self.centred[rows],
        )
