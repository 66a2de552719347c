"""Tell what vLLM makes of the classes with a vision tower.

Usage: ``python -m tests.integration.sidecar.plugin.vision``.

The imports of those need torchvision, which has no build beside a CPU's torch here: an empty one stands in,
which is enough to make the classes and not to serve with them.
"""

import json
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

MODULES = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2", "torchvision.io")


class Empty(types.ModuleType):
    """Has every name, and nothing behind it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def main() -> int:
    """Print, as JSON, whether our stand-in can be captured, and why the Transformers backend's is not."""
    from vllm.model_executor.models.interfaces import supports_eagle3, supports_multimodal
    from vllm.model_executor.models.transformers import TransformersMultiModalForCausalLM

    from subtext_sidecar.plugin.vllm.refusal import refuse_model

    for name in MODULES:
        sys.modules[name] = Empty(name)
    from vllm.model_executor.models.gemma3_mm import Gemma3ForConditionalGeneration as Original

    from subtext_sidecar.plugin.vllm.stand_ins.gemma3_vision import Gemma3ForConditionalGeneration

    refusal = refuse_model(object.__new__(TransformersMultiModalForCausalLM))
    answer = {
        "is_a_stand_in": Gemma3ForConditionalGeneration.__bases__[0] is Original,
        "original_can_be_captured": supports_eagle3(Original),
        "stand_in_can_be_captured": supports_eagle3(Gemma3ForConditionalGeneration),
        "stand_in_sees": supports_multimodal(Gemma3ForConditionalGeneration),
        "backend_refused": refusal.detail if refusal is not None else None,
    }
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
