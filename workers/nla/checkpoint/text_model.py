"""Load the text model of a checkpoint, plain or inside a multimodal wrapper.

Gemma 3 from 4B up is published as `Gemma3ForConditionalGeneration`. Its text weights have the prefix
`language_model.model.` or, depending on the transformers version, `model.language_model.`; their sizes are
in `text_config`. A decoder does not need the vision tower, so it is never built.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workers.nla.checkpoint.weights import read_layout
from workers.nla.errors import MetaError

WRAPPERS = ("language_model.model.", "model.language_model.")
"""Prefixes of text weights in a multimodal wrapper."""
OTHER_SIDES = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)
"""Prefixes of the other weights in a multimodal wrapper."""
_FINAL_NORMS = ("norm", "final_layernorm", "ln_f")


def is_wrapped_gemma3(folder: Path) -> bool:
    """Tell whether `config.json` describes Gemma 3 inside its wrapper."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("model_type") == "gemma3" and "text_config" in config


def load_blocks(folder: Path) -> Any:
    """Load a checkpoint's text model in float32 without its final norm.

    Raises MetaError when any other tensor is missing or has another size, because transformers would
    initialize it randomly.
    """
    import torch
    import transformers

    wrapper = read_layout(folder).prefix
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    with _quiet():
        model, report = transformers.AutoModel.from_pretrained(
            folder,
            config=getattr(config, "text_config", config),
            dtype=torch.float32,
            key_mapping={f"^{re.escape(wrapper)}": ""} if wrapper in WRAPPERS else None,
            output_loading_info=True,
            # The error below lists mismatched and missing tensors together.
            ignore_mismatched_sizes=True,
            local_files_only=True,
        )
    random = [
        *(name for name in report["missing_keys"] if name.rpartition(".")[0] not in _FINAL_NORMS),
        *(entry[0] for entry in report["mismatched_keys"]),
    ]
    if random:
        raise MetaError(
            f"{folder}: weights: {len(random)} tensors are missing or of another size, such as"
            f" {min(random)!r}; their names or config.json do not fit each other,"
            " save it again with save_pretrained"
        )
    return without_final_norm(model)


def first_blocks(folder: Path, count: int) -> dict[str, Any]:
    """Return the `from_pretrained` arguments that keep only a checkpoint's first `count` blocks."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = config.get("layer_types")
    # Families with mixed attention list a type per block; the list must match the number of blocks.
    return {"num_hidden_layers": count, **({"layer_types": kinds[:count]} if kinds else {})}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warning about unused vision weights; the caller checks the text weights itself."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def without_final_norm(model: Any) -> Any:
    """Replace a text model's final norm by the identity; raises MetaError when it has none."""
    import torch

    for name in _FINAL_NORMS:
        if hasattr(model, name):
            setattr(model, name, torch.nn.Identity())
            return model
    raise MetaError(
        f"model_type: {type(model).__name__} has no final norm named like {_FINAL_NORMS}; add its name to"
        " them"
    )
