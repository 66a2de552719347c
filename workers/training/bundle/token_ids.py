"""Pack chats into flat arrays of token ids, in 16 bits where the vocabulary allows; pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "chats.safetensors"


def pack_chats(rows: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return the chats as arrays; `unpack_chats` is the inverse."""
    tokens = np.array([token for row in rows for token in row["tokens"]], np.uint32)
    small = len(tokens) == 0 or int(tokens.max()) <= np.iinfo(np.uint16).max
    return {
        "tokens": tokens.astype(np.uint16) if small else tokens,
        "ends": np.cumsum([len(row["tokens"]) for row in rows], dtype=np.uint32),
        "prompt_tokens": np.array([row["prompt_tokens"] for row in rows], np.uint32),
        "is_real": np.array([row["origin"] == "real" for row in rows], np.uint8),
    }


def unpack_chats(arrays: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Return the chats' rows from `pack_chats`'s arrays."""
    chats = np.split(arrays["tokens"], arrays["ends"][:-1].astype(np.int64))
    return [
        {"origin": "real" if is_real else "sets", "prompt_tokens": prompt_tokens, "tokens": tokens.tolist()}
        for is_real, prompt_tokens, tokens in zip(
            arrays["is_real"].tolist(), arrays["prompt_tokens"].tolist(), chats, strict=True
        )
    ]
