"""Read activations of whole chats with Hugging Face transformers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training.fit import precision

TOP = 3
"""Number of likeliest next tokens to keep."""


class ChatReading(NamedTuple):
    """Activations and next tokens at one chat's chosen positions."""

    vectors: NDArray[np.float32]
    """Output of block K, (positions, d_model)."""
    next_tokens: NDArray[np.int64]
    """The model's likeliest next tokens, best first, (positions, TOP)."""


class ActivationReader:
    """The loaded audited model."""

    def __init__(self, model: str, *, layer: int) -> None:
        """Load the model in float32; ValueError when it has no block `layer`."""
        import torch
        import transformers

        self._torch = torch
        self._device = precision.device()
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self._model = loaded.eval().to(self._device)
        last = self._model.config.num_hidden_layers - 1
        if not 0 <= layer < last:
            # For the last block, transformers returns the output after the final norm.
            raise ValueError(f"layer: {layer} must be one of the model's blocks 0..{last - 1}")
        self._layer = layer

    def read(self, chats: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> list[ChatReading]:
        """Return block K's outputs and the likeliest next tokens at each chat's positions."""
        torch = self._torch
        rows = [torch.tensor(list(tokens)) for tokens in chats]
        # Padding on the right comes after every read position, where causal attention does not look.
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._device)
        with torch.inference_mode():
            output = self._model.get_decoder()(padded, output_hidden_states=True)
            return [
                self._at(
                    output.hidden_states[self._layer + 1][row], output.last_hidden_state[row], list(places)
                )
                for row, places in enumerate(positions)
            ]

    def _at(self, states: Any, last: Any, places: list[int]) -> ChatReading:
        # hidden_states[0] is the embedding, so the output of block K is entry K+1.
        logits = self._model.get_output_embeddings()(last[places])
        return ChatReading(
            states[places].float().cpu().numpy(), logits.float().topk(TOP, dim=-1).indices.cpu().numpy()
        )
