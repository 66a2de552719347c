"""Read the residual stream of whole chats with Hugging Face; one forward a chat, no padding."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TOP = 3
"""How many of the model's own next tokens are kept."""


class ChatReading(NamedTuple):
    """What one chat gave at its chosen positions."""

    vectors: NDArray[np.float32]
    """(positions, d_model): the output of block K."""
    next_tokens: NDArray[np.int64]
    """(positions, TOP): the model's likeliest next tokens, best first."""


class ActivationReader:
    """The audited model with everything dropped that reading does not need."""

    def __init__(self, model: str, *, layer: int) -> None:
        """Load the model in float32; ValueError when it has no block `layer`."""
        import torch
        import transformers

        self._torch = torch
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32
        ).eval()
        last = self._model.config.num_hidden_layers - 1
        if not 0 <= layer < last:
            # Transformers returns the last block's output only after the final norm.
            raise ValueError(f"layer: {layer} must be one of the model's blocks 0..{last - 1}")
        self._layer = layer

    def read(self, tokens: Sequence[int], positions: Sequence[int]) -> ChatReading:
        """Return block K's output and the likeliest next tokens at `positions`."""
        with self._torch.inference_mode():
            output = self._model.model(self._torch.tensor([list(tokens)]), output_hidden_states=True)
            # hidden_states[0] is the embedding, so the output of block K is entry K+1.
            vectors = output.hidden_states[self._layer + 1][0, list(positions)]
            logits = self._model.lm_head(output.last_hidden_state[0, list(positions)])
            next_tokens = logits.topk(TOP, dim=-1).indices
        return ChatReading(vectors.float().numpy(), next_tokens.numpy())
