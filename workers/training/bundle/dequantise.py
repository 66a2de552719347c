"""Dequantise two of GGUF's block formats to float32, bit for bit like the `gguf` package; pure."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.uint8]
_VALUES = 32
"""Values per block, in both formats."""


def _q4_1(blocks: Blocks) -> NDArray[np.float32]:
    """Decode scale, minimum, and 16 bytes whose low nibbles hold the first half of the values."""
    quarters = blocks[:, 4:]
    values = np.concatenate([quarters & 0x0F, quarters >> 4], axis=1).astype(np.float32)
    return np.asarray(_half(blocks[:, :2]) * values + _half(blocks[:, 2:4]), np.float32)


def _q8_0(blocks: Blocks) -> NDArray[np.float32]:
    """Decode a scale and 32 signed bytes."""
    return np.asarray(_half(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32), np.float32)


def _half(two_bytes: Blocks) -> NDArray[np.float32]:
    return np.ascontiguousarray(two_bytes).view(np.float16).astype(np.float32)


_FORMATS: dict[str, tuple[int, Callable[[Blocks], NDArray[np.float32]]]] = {
    "Q4_1": (20, _q4_1),
    "Q8_0": (34, _q8_0),
}
"""Bytes per block, and the function that decodes (n, bytes) to (n, 32)."""
FORMATS = tuple(_FORMATS)


def dequantise(rows: Blocks, name: str) -> NDArray[np.float32]:
    """Return the values (n, values) of rows of whole blocks (n, bytes)."""
    size, read = _FORMATS[name]
    blocks = np.ascontiguousarray(rows).reshape(-1, size)
    return read(blocks).reshape(len(rows), -1)
