"""Model classes of ours that stand in for vLLM's where those have no auxiliary hidden states."""

import logging
import sys
from typing import Final

from subtext_sidecar.plugin.vllm.activation import LOGGER

# vLLM's name of an architecture, and where the class is that serves it in engines with our key.
STAND_INS: Final = {
    "Gemma3ForCausalLM": "subtext_sidecar.plugin.vllm.stand_ins.gemma3:Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration": (
        "subtext_sidecar.plugin.vllm.stand_ins.gemma3_vision:Gemma3ForConditionalGeneration"
    ),
}


def register_stand_ins() -> None:
    """Name them in vLLM's registry, which imports them when such a model is served. Never raises."""
    if "vllm" not in sys.modules:
        return  # not called by vLLM, so there is no engine to register them for
    try:
        from vllm import ModelRegistry

        for architecture, path in STAND_INS.items():
            ModelRegistry.register_model(architecture, path)
    except Exception:
        logging.getLogger(LOGGER).exception("subtext could not register its model classes")
