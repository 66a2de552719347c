"""The rows of one split, with everything that target texts are made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Material(NamedTuple):
    """The rows of one split, with everything that target texts are made of."""

    sentences: Sequence[str]
    """Every row's first sentence, from the label head."""
    context: NDArray[np.int64]
    """The last c tokens, ending with the read token, (n, c)."""
    next_tokens: NDArray[np.int64]
    """The model's likeliest next tokens, (n,)."""
    vectors: NDArray[np.float32]
    """Raw activations, (n, d)."""
    centred: NDArray[np.float32]
    """The projector's input, (n, d)."""

    def take(self, rows: NDArray[np.int64]) -> "Material":
        """Return the chosen rows."""
        return Material(
            [self.sentences[row] for row in rows],
            self.context[rows],
            self.next_tokens[rows],
            self.vectors[rows],
            self.centred[rows],
        )
