"""Two of GGUF's block formats back to float32, bit for bit as the `gguf` package does it; pure."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.uint8]
_VALUES = 32
"""Values of a block, in both formats."""


def _q4_1(blocks: Blocks) -> NDArray[np.float32]:
    """Scale, minimum, and 16 bytes of two values each: the first half of the block in the low bits."""
    quarters = blocks[:, 4:]
    values = np.concatenate([quarters & 0x0F, quarters >> 4], axis=1).astype(np.float32)
    return np.asarray(_half(blocks[:, :2]) * values + _half(blocks[:, 2:4]), np.float32)


def _q8_0(blocks: Blocks) -> NDArray[np.float32]:
    """Scale and 32 signed bytes."""
    return np.asarray(_half(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32), np.float32)


def _half(two_bytes: Blocks) -> NDArray[np.float32]:
    return np.ascontiguousarray(two_bytes).view(np.float16).astype(np.float32)


_FORMATS: dict[str, tuple[int, Callable[[Blocks], NDArray[np.float32]]]] = {
    "Q4_1": (20, _q4_1),
    "Q8_0": (34, _q8_0),
}
"""Bytes of a block, and what reads it."""
FORMATS = tuple(_FORMATS)


def dequantise(rows: Blocks, name: str) -> NDArray[np.float32]:
    """Return the values of an (n, bytes) array of whole blocks, (n, values)."""
    size, read = _FORMATS[name]
    blocks = np.ascontiguousarray(rows).reshape(-1, size)
    return read(blocks).reshape(len(rows), -1)
