"""Gemma 3 with a vision tower, apart from the text model because its imports need torchvision.

Its language model is the text model, which vLLM looks up by its registered name: our stand-in.
"""

import logging
from typing import Any

from vllm.model_executor.models.gemma3_mm import Gemma3ForConditionalGeneration as Original

from subtext_sidecar.plugin.vllm.activation import LOGGER


def _choose() -> Any:
    try:
        from vllm.model_executor.models.interfaces import SupportsEagle3

        class CapturableGemma3WithVision(Original, SupportsEagle3):  # type: ignore[misc]  # vLLM is untyped
            """vLLM's class; it returns what its language model does, and now says that it may be asked."""

    except Exception:
        logging.getLogger(LOGGER).exception("subtext: this vLLM's Gemma 3 cannot be extended")
        return Original
    return CapturableGemma3WithVision


Gemma3ForConditionalGeneration: Any = _choose()
