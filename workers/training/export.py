"""Write the shipped pair: adapters and head in half precision, and the official `nla_meta.yaml` of each."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from workers.training.config import RunConfig
from workers.training.reconstructor import TEMPLATE, Reconstructor
from workers.training.verbalizer import Prompt, Verbalizer

ADAPTER = "adapter_model.safetensors"
HEAD = "head.safetensors"


def export_pair(config: RunConfig, av: Verbalizer, ar: Reconstructor, tokenizer: Any, target: Path) -> None:
    """Write `av/` and `ar/` under `target`, each loadable by PEFT on the base model."""
    import safetensors.torch
    import torch

    _save_adapter(av.peft, target / "av", config)
    _save_adapter(ar.peft, target / "ar", config)
    safetensors.torch.save_file(
        {"weight": ar.head.weight.detach().to(torch.float16).contiguous()}, target / "ar" / HEAD
    )
    write_meta(target / "av", verbalizer_meta(config, av.prompt, ar.head.in_features))
    write_meta(target / "ar", reconstructor_meta(config, av.prompt, ar.head.in_features, tokenizer))


def verbalizer_meta(config: RunConfig, prompt: Prompt, d_model: int) -> dict[str, Any]:
    """Return the official description of the AV."""
    return {
        "kind": "nla_model",
        "schema_version": 2,
        "role": "av",
        "stage": "sft",
        "base_checkpoint": config.model_name,
        "d_model": d_model,
        "extraction": {
            "layer_index": config.layer,
            "injection_scale": config.injection.scale,
            "mse_scale": math.sqrt(d_model),
        },
        "tokens": {
            "injection_char": config.injection.character,
            "injection_token_id": prompt.ids[prompt.position],
            "injection_left_neighbor_id": prompt.ids[prompt.position - 1],
            "injection_right_neighbor_id": prompt.ids[prompt.position + 1],
        },
        "prompt_templates": {"av": config.injection.template, "ar": TEMPLATE},
    }


def reconstructor_meta(config: RunConfig, prompt: Prompt, d_model: int, tokenizer: Any) -> dict[str, Any]:
    """Return the official description of the AR."""
    meta = verbalizer_meta(config, prompt, d_model)
    # The suffix's first token may merge with the explanation's end, so it is not part of the check.
    suffix = tokenizer.encode(TEMPLATE.split("{explanation}")[1], add_special_tokens=False)[1:]
    tokens = {**meta["tokens"], "critic_suffix_ids": suffix}
    layers = {"extraction_layer_index": config.layer}
    return {
        **meta,
        "role": "ar",
        "tokens": tokens,
        "ar": {"num_hidden_layers": config.layer},
        "critic": layers,
    }


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write `nla_meta.yaml`."""
    import yaml

    (folder / "nla_meta.yaml").write_text(yaml.safe_dump(meta, sort_keys=False, allow_unicode=True))


def _save_adapter(peft_model: Any, folder: Path, config: RunConfig) -> None:
    import safetensors.torch
    import torch

    shutil.rmtree(folder, ignore_errors=True)
    peft_model.save_pretrained(folder)
    weights = safetensors.torch.load_file(folder / ADAPTER)
    halves = {name: value.to(torch.float16).contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(halves, folder / ADAPTER, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes the path that the model was loaded from, which means nothing elsewhere.
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = config.model_name
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
