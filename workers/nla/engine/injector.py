"""From vectors to the AV's input: injected rows, labels and prompts, in numpy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.nla.checkpoint.labels import LabelHead, load_labels
from workers.nla.checkpoint.meta import Meta
from workers.nla.checkpoint.projector import Projector, load_projector
from workers.nla.claims import VectorLabels
from workers.nla.engine.prompt import InjectionPrompt


def check_directions(vectors: NDArray[np.float32]) -> None:
    """Raise ValueError naming the rows of (n, d) that are zero or not finite."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if bad.size:
        raise ValueError(f"vectors: rows {bad.tolist()} are zero or not finite; drop them before reading")


def rescale(vectors: NDArray[np.float32], norm: float | None) -> NDArray[np.float32]:
    """Scale every row of (n, d) to the L2 norm of the AV's training; None leaves rows unscaled."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors if norm is None else vectors * (norm / lengths), np.float32)


class Injector:
    """Builds injected rows, labels and prompts for one AV."""

    def __init__(self, checkpoint: Path, meta: Meta, tokenizer: Any) -> None:
        """Check the prompt, then load projector and labels; raises PromptError or MetaError."""
        self.prompt = InjectionPrompt(meta, tokenizer)
        self._norm = None if meta.projector else meta.injection_scale
        self._projector: Projector | None = None
        self._labels: LabelHead | None = None
        if (part := meta.projector) is not None:
            self._projector = load_projector(
                checkpoint / part.file,
                d_model=meta.d_model,
                rows=part.rows,
                scale=part.scale,
                mean=part.mean,
            )
        if (files := meta.labels) is not None:
            self._labels = load_labels(
                checkpoint, d_model=meta.d_model, file=files.file, names_file=files.names
            )

    @property
    def longest_prompt(self) -> int:
        """Length of the longest possible prompt, in tokens."""
        sentences = self._labels.longest_sentences() if self._labels else [""]
        return max(len(self.prompt.build(0, sentence).ids) for sentence in sentences)

    def label(self, vectors: NDArray[np.float32]) -> Sequence[VectorLabels | None]:
        """Return the labels of every row of (n, d_model), each None for a pair without labels."""
        if self._labels is None or self._projector is None:
            return [None] * len(vectors)
        return self._labels.label(self._projector.centre(vectors))

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embeddings to inject, (n, rows, d_model), for vectors (n, d_model)."""
        if self._projector is None:
            return rescale(vectors, self._norm)[:, None]
        return self._projector.project(vectors)
