"""Gemma 3's text model out of its multimodal wrapper, for vLLM.

vLLM's own class for the wrapper builds the vision tower and asks for an image processor; a decoder
may ship without both. vLLM imports this module by name, only for such checkpoints.
"""

from typing import Any

from vllm.model_executor.models import gemma3
from vllm.model_executor.models.utils import WeightsMapper

from workers.nla.checkpoint.text_model import OTHER_SIDES, WRAPPERS


class UnwrappedGemma3ForCausalLM(gemma3.Gemma3ForCausalLM):  # type: ignore[misc]  # vLLM is untyped here
    """vLLM's text model, reading the text weights of a wrapper and no others."""

    hf_to_vllm_mapper: Any = gemma3.Gemma3ForCausalLM.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_prefix={
            **dict.fromkeys(WRAPPERS, "model."),
            **dict.fromkeys(OTHER_SIDES, None),
            "language_model.lm_head.": "lm_head.",
        }
    )


def unwrap(config: Any) -> Any:
    """Turn a wrapper's configuration into that of its text model; vLLM's `hf_overrides`.

    vLLM first asks with an empty configuration whether the model's type changes, which it does not.
    """
    text = getattr(config, "text_config", None)
    if text is None:
        return config
    text.architectures = [UnwrappedGemma3ForCausalLM.__name__]
    return text
