"""Gemma 3 with auxiliary hidden states, which vLLM's own classes lack (docs/decisions/0006-gemma.md).

vLLM's classes, weights and layers, and one loop of our own: it also returns the residual stream
where asked. While nothing is asked for, the result is that of vLLM's class. vLLM imports this
module by name, only in engines that have our key and serve such a model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from vllm.distributed import get_pp_group
from vllm.model_executor.models import gemma3
from vllm.model_executor.models.interfaces import EagleModelMixin, SupportsEagle3

_BUILT: Final = "Gemma3Model"


class CapturableGemma3Model(gemma3.Gemma3Model, EagleModelMixin):  # type: ignore[misc]  # vLLM is untyped here
    """The decoder; compiled by vLLM like the class that it extends."""

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the hidden states, (tokens, d_model), and behind them a list of any asked for."""
        if not self.aux_hidden_state_layers or get_pp_group().world_size > 1:
            return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)
        hidden_states = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        residual = None
        captured = self._maybe_add_hidden_state([], 0, hidden_states, None)
        for number, layer in enumerate(self.layers, start=1):
            hidden_states, residual = layer(positions, hidden_states, residual, **kwargs)
            self._maybe_add_hidden_state(captured, number, hidden_states, residual)
        hidden_states, _ = self.norm(hidden_states, residual)
        return hidden_states, captured


class CapturableGemma3(gemma3.Gemma3ForCausalLM, SupportsEagle3):  # type: ignore[misc]  # untyped
    """The text model."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        with _builds_capturable_decoder():
            super().__init__(vllm_config=vllm_config, prefix=prefix)


@contextmanager
def _builds_capturable_decoder() -> Iterator[None]:
    """Let vLLM's constructor build our decoder, so that it need not be written out again here."""
    built = getattr(gemma3, _BUILT)
    setattr(gemma3, _BUILT, CapturableGemma3Model)
    try:
        yield
    finally:
        setattr(gemma3, _BUILT, built)
