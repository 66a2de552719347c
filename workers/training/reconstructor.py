"""The activation reconstructor (AR) in training: text to vector."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.training.adapters import common_prefix, prefixed_forward, with_adapters
from workers.training.config import Training

TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
"""The official prompt; the vector is read at its last token."""
_BATCH = 32


class Reconstructor:
    """Blocks 0..K of the audited model with adapters, no final norm, and a square head."""

    def __init__(self, model: str, tokenizer: Any, config: Training, *, layer: int) -> None:
        """Start at the model itself: the head is the identity and the adapters are zero."""
        import torch
        import transformers

        self._torch = torch
        self._tokenizer = tokenizer
        backbone: Any = transformers.AutoModel.from_pretrained(
            model, num_hidden_layers=layer + 1, dtype=torch.float32
        )
        backbone.norm = torch.nn.Identity()
        self.peft = with_adapters(backbone, config)
        self._backbone = self.peft.get_base_model()
        width = backbone.config.hidden_size
        self.head = torch.nn.Linear(width, width, bias=False)
        torch.nn.init.eye_(self.head.weight)

    def parameters(self) -> dict[str, Any]:
        """Return what is trained, by name."""
        trained = {name: value for name, value in self.peft.named_parameters() if value.requires_grad}
        return {**trained, "head.weight": self.head.weight}

    def encode(self, explanation: str) -> list[int]:
        """Tokenise an explanation inside the official prompt."""
        return list(self._tokenizer.encode(TEMPLATE.format(explanation=explanation)))

    def forward(self, sequences: Sequence[list[int]]) -> Any:
        """Return the (n, d) predicted vectors of encoded explanations, with gradients."""
        torch = self._torch
        shared = common_prefix(sequences)
        rest = [torch.tensor(sequence[shared:]) for sequence in sequences]
        padded = torch.nn.utils.rnn.pad_sequence(rest, batch_first=True)
        prefix = torch.tensor(sequences[0][:shared])
        hidden = prefixed_forward(self._backbone, prefix, self._backbone.embed_tokens(padded))
        last = torch.tensor([len(own) - 1 for own in rest])
        return self.head(hidden[torch.arange(len(rest)), last])

    def loss(self, sequences: Sequence[list[int]], vectors: NDArray[np.float32]) -> Any:
        """Return the official loss: squared distance of unit vectors, 2(1 - cos), 0 to 4."""
        predicted = self.forward(sequences)
        wanted = self._torch.from_numpy(vectors)
        return 2 * (1 - self._torch.cosine_similarity(predicted, wanted, dim=-1)).mean()

    def rebuild(self, explanations: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of explanations, without gradients."""
        sequences = [self.encode(text) for text in explanations]
        with self._torch.inference_mode():
            parts = [
                self.forward(sequences[start : start + _BATCH]).numpy()
                for start in range(0, len(sequences), _BATCH)
            ]
        return np.concatenate(parts)
