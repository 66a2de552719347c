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
    topic: NDArray[np.int64]
    """Indices into the taxonomy, as are the next two; see labels.Labels."""
    register: NDArray[np.int64]
    kinds: NDArray[np.int64]
    positions: NDArray[np.int64]
    documents: NDArray[np.int64]
    """Which chat each row comes from."""

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the chosen rows."""
        return type(self)(**{name: array[rows] for name, array in self._arrays().items()})

    def save(self, path: Path) -> None:
        """Write atomically, so that a step cut short is run again."""
        from safetensors.numpy import save_file

        unfinished = path.with_suffix(".unfinished")
        save_file({name: np.ascontiguousarray(array) for name, array in self._arrays().items()}, unfinished)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in self.__slots__}
