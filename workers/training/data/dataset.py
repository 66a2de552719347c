"""The collected samples of a split, as one safetensors file without texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Aligned arrays with one row per sample; columns without a given shape are (n,)."""

    vectors: NDArray[np.float32]
    """Raw activations, (n, d_model)."""
    context: NDArray[np.int64]
    """The last c tokens, ending with the read token, (n, c)."""
    next_tokens: NDArray[np.int64]
    """The model's likeliest next tokens, best first, (n, 3)."""
    areas: NDArray[np.float32]
    """Probability of each area according to the labeller, (n, areas)."""
    topic: NDArray[np.int64]
    """`topic`, `register` and `kinds` refer to the taxonomy; see `labels.Labels`."""
    register: NDArray[np.int64]
    kinds: NDArray[np.int64]
    positions: NDArray[np.int64]
    is_answer: NDArray[np.int64]
    """1 where the model wrote the token."""
    is_real: NDArray[np.int64]
    """1 where the prompt comes from a real user."""
    documents: NDArray[np.int64]
    """Index of the row's chat."""

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The read tokens, (n,)."""
        return self.context[:, -1]

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the chosen rows."""
        return type(self)(**{name: array[rows] for name, array in self.arrays().items()})

    def save(self, path: Path) -> None:
        """Write the file atomically, so that an interrupted step runs again."""
        from safetensors.numpy import save_file

        unfinished = path.with_suffix(".unfinished")
        save_file({name: np.ascontiguousarray(array) for name, array in self.arrays().items()}, unfinished)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Return the rows of all parts, in order."""
        return cls(
            **{name: np.concatenate([getattr(one, name) for one in parts]) for name in cls.__slots__}
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every column by name."""
        return {name: getattr(self, name) for name in self.__slots__}
