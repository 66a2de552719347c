"""Gemma 3 of text alone."""

import logging
from typing import Any

from vllm.model_executor.models.gemma3 import Gemma3ForCausalLM as Original

from subtext_sidecar.plugin.vllm.activation import LOGGER


def _choose() -> Any:
    try:
        from subtext_sidecar.plugin.vllm.stand_ins.capturable_gemma3 import CapturableGemma3
    except Exception:
        logging.getLogger(LOGGER).exception("subtext: this vLLM's Gemma 3 cannot be extended")
        return Original
    return CapturableGemma3


Gemma3ForCausalLM: Any = _choose()
