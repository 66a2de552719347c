"""Let vLLM load Gemma 3's text model from a multimodal wrapper.

vLLM's class for the wrapper builds the vision tower and needs an image processor, and decoders may ship
without either. vLLM imports this module by name, only for wrapped checkpoints.
"""

from typing import Any

from vllm.model_executor.models import gemma3
from vllm.model_executor.models.utils import WeightsMapper

from workers.nla.checkpoint.text_model import OTHER_SIDES, WRAPPERS


class UnwrappedGemma3ForCausalLM(gemma3.Gemma3ForCausalLM):  # type: ignore[misc]  # vLLM is untyped here
    """vLLM's text model, which loads only the text weights of a wrapper."""

    hf_to_vllm_mapper: Any = gemma3.Gemma3ForCausalLM.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_prefix={
            **dict.fromkeys(WRAPPERS, "model."),
            **dict.fromkeys(OTHER_SIDES, None),
            "language_model.lm_head.": "lm_head.",
        }
    )


def unwrap(config: Any) -> Any:
    """Return the text model's configuration from a wrapper's; for vLLM's `hf_overrides`.

    vLLM first calls `hf_overrides` with an empty configuration, which must come back unchanged.
    """
    text = getattr(config, "text_config", None)
    if text is None:
        return config
    text.architectures = [UnwrappedGemma3ForCausalLM.__name__]
    return text
