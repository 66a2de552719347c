"""The projector of a pair: a linear map from the centred unit vector to soft tokens of the AV's prompt."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.errors import MetaError

FILE = "projector.safetensors"


class Projector(NamedTuple):
    """Weights in float32."""

    weight: NDArray[np.float32]
    """(rows * d_model, d_model)."""
    bias: NDArray[np.float32]
    """(rows * d_model,)."""
    mean: NDArray[np.float32]
    """Mean direction of the layer's vectors, (d_model,)."""
    scale: float
    """Divisor of the centred unit vector."""

    @property
    def rows(self) -> int:
        """Number of soft tokens per vector."""
        return len(self.bias) // len(self.mean)

    def centre(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return centred, scaled directions (n, d_model), the input of projector and label head."""
        return centre(vectors, self.mean, self.scale)

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the soft tokens (n, rows, d_model) of raw vectors (n, d_model)."""
        flat = self.centre(vectors) @ self.weight.T + self.bias
        return np.asarray(flat.reshape(len(vectors), self.rows, len(self.mean)), np.float32)


def centre(vectors: NDArray[np.float32], mean: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Return `(v / |v| - mean) / scale` for every row of (n, d_model), none of which may be zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((vectors / lengths - mean) / scale, np.float32)


def load_projector(path: Path, *, d_model: int, rows: int, scale: float, mean: str = "mean") -> Projector:
    """Load a projector; `mean` names the tensor of the layer's mean direction. Raises MetaError."""
    arrays = load_arrays(
        path, {"weight": (rows * d_model, d_model), "bias": (rows * d_model,), mean: (d_model,)}
    )
    return Projector(arrays["weight"], arrays["bias"], arrays[mean], scale)


def load_arrays(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """Load finite float arrays of known shapes; MetaError names file, tensor and fix."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except FileNotFoundError:
        raise MetaError(f"{path}: missing; it ships with the pair, copy the pair again") from None
    except (OSError, SafetensorError) as error:
        raise MetaError(f"{path}: not a safetensors file ({error}); copy it again") from error
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape:
            has = "nothing" if array is None else str(array.shape)
            raise MetaError(f"{path}: {name}: must be {shape}, is {has}; it belongs to another pair")
        if not np.isfinite(array).all():
            raise MetaError(f"{path}: {name}: holds numbers that are not finite; copy the file again")
    return {name: np.asarray(arrays[name], np.float32) for name in shapes}
