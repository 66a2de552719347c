"""The collected vectors on disk: one safetensors file with a row a sample, no texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Aligned arrays, one row a sample."""

    vectors: NDArray[np.float32]
    """(n, d_model)"""
    context: NDArray[np.int64]
    """(n, c): the last c tokens up to and with the read one."""
    next_tokens: NDArray[np.int64]
    """(n, 3)"""
    areas: NDArray[np.float32]
    """(n, areas): how near the labelled text is to each area, in probabilities."""
    topic: NDArray[np.int64]
    """Indices into the taxonomy, as are the next two; see labels.Labels."""
    register: NDArray[np.int64]
    kinds: NDArray[np.int64]
    positions: NDArray[np.int64]
    is_answer: NDArray[np.int64]
    """1 where the model itself wrote the token."""
    is_real: NDArray[np.int64]
    """1 where the prompt is one that somebody once typed."""
    documents: NDArray[np.int64]
    """Which chat each row comes from."""

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The read token of every row, (n,)."""
        return self.context[:, -1]

    def take(self, rows: NDArray[Any]) -> Self:
        """Return the chosen rows."""
        return type(self)(**{name: array[rows] for name, array in self.arrays().items()})

    def save(self, path: Path) -> None:
        """Write atomically, so that a step cut short is run again."""
        from safetensors.numpy import save_file

        unfinished = path.with_suffix(".unfinished")
        save_file({name: np.ascontiguousarray(array) for name, array in self.arrays().items()}, unfinished)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
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
