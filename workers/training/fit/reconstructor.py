"""The activation reconstructor (AR) in training."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.nla.checkpoint.text_model import first_blocks, without_final_norm
from workers.nla.engine.reconstructor import batches_by_length
from workers.training.config import Training
from workers.training.fit import precision
from workers.training.fit.adapters import with_adapters

_BATCH, _BATCH_CUDA = 48, 512


class Reconstructor:
    """Blocks 0..K of the audited model with adapters, without final norm, and a square head."""

    def __init__(self, model: str, config: Training, *, layer: int) -> None:
        """Load the model; the adapters start at zero and the head at the identity."""
        import torch
        import transformers

        self._torch = torch
        self._device = precision.device()
        backbone: Any = transformers.AutoModel.from_pretrained(
            model, dtype=torch.float32, **first_blocks(Path(model), layer + 1)
        )
        without_final_norm(backbone)
        width = backbone.config.hidden_size
        self.peft = with_adapters(backbone, config).to(self._device)
        self._backbone = self.peft.get_base_model()
        self.head = torch.nn.Linear(width, width, bias=False).to(self._device)
        torch.nn.init.eye_(self.head.weight)

    def parameters(self) -> dict[str, Any]:
        """Return the trained parameters by name."""
        trained = {name: value for name, value in self.peft.named_parameters() if value.requires_grad}
        return {**trained, "head.weight": self.head.weight}

    def head_weight(self) -> NDArray[np.float64]:
        """Return the head's weight, (d, d)."""
        return np.asarray(self.head.weight.detach().float().cpu().numpy(), np.float64)

    def set_head(self, weight: NDArray[np.float32]) -> None:
        """Replace the head's weight, (d, d)."""
        with self._torch.no_grad():
            self.head.weight.copy_(self._torch.from_numpy(np.ascontiguousarray(weight)))

    def forward(self, sequences: Sequence[list[int]]) -> Any:
        """Return the vectors predicted from prompts, (n, d), with gradients."""
        with precision.autocast():
            return self.head(self._read(sequences)).float()

    def loss(self, sequences: Sequence[list[int]], vectors: NDArray[np.float32]) -> Any:
        """Return the official loss, the mean squared distance of unit vectors, 2 (1 - cosine), 0 to 4."""
        predicted = self.forward(sequences)
        targets = self._torch.from_numpy(vectors).to(self._device)
        return 2 * (1 - self._torch.cosine_similarity(predicted, targets, dim=-1)).mean()

    def features(self, sequences: Sequence[list[int]]) -> NDArray[np.float32]:
        """Return the head's inputs, (n, d), without gradients."""
        return self._collect(sequences, self._read)

    def rebuild(self, sequences: Sequence[list[int]]) -> NDArray[np.float32]:
        """Return the vectors predicted from prompts, (n, d), without gradients."""
        return self._collect(sequences, self.forward)

    def _collect(self, sequences: Sequence[list[int]], act: Any) -> NDArray[np.float32]:
        outputs = np.empty((len(sequences), self.head.in_features), np.float32)
        with self._torch.inference_mode(), precision.autocast():
            for rows in _batches(sequences):
                outputs[rows] = act([sequences[row] for row in rows]).float().cpu().numpy()
        return outputs

    def _read(self, sequences: Sequence[list[int]]) -> Any:
        torch = self._torch
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(sequence) for sequence in sequences], batch_first=True
        )
        hidden = self._backbone(input_ids=padded.to(self._device), use_cache=False).last_hidden_state
        last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=self._device)
        return hidden[torch.arange(len(sequences), device=self._device), last]


def refit_head(
    head: NDArray[np.float64], features: NDArray[np.float32], units: NDArray[np.float64], *, ridge: float
) -> NDArray[np.float64]:
    """Return the ridge solution, shrunk to `head` (d, d), that maps `features` to `units`, (n, d) each.

    Features are scaled to unit mean square norm first, so that `ridge` is comparable between models.
    """
    rows = np.asarray(features, np.float64)
    rows = rows / np.sqrt(np.square(rows).sum(axis=1).mean())
    predicted = rows @ head.T
    # Only directions count, so the head's scale is free: choose the scale that fits these rows best.
    head = head * (predicted * units).sum() / np.square(predicted).sum()
    gram = rows.T @ rows + ridge * np.eye(rows.shape[1])
    return np.asarray(head + np.linalg.solve(gram, rows.T @ (units - rows @ head.T)).T)


def _batches(sequences: Sequence[list[int]]) -> Iterator[list[int]]:
    return batches_by_length(sequences, precision.sized(cpu=_BATCH, cuda=_BATCH_CUDA))
