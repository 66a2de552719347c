"""Write the shipped pair: float16 adapters, head, projector and label head, and each half's metadata."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from workers.nla.checkpoint import labels as label_head
from workers.nla.checkpoint.projector import FILE as PROJECTOR
from workers.nla.checkpoint.projector import Projector
from workers.training.config import RunConfig
from workers.training.data.targets import ReadingWriter
from workers.training.fit.labels import save_labels
from workers.training.fit.reconstructor import Reconstructor
from workers.training.fit.verbalizer import Verbalizer

ADAPTER = "adapter_model.safetensors"
HEAD = "head.safetensors"


def export_pair(  # noqa: PLR0917  # the parts of one pair
    config: RunConfig,
    av: Verbalizer,
    ar: Reconstructor,
    projector: Projector,
    head: label_head.LabelHead,
    writer: ReadingWriter,
    target: Path,
) -> None:
    """Write `av/` and `ar/` under `target`; PEFT can load each onto the base model."""
    import safetensors.torch
    import torch
    from safetensors.numpy import save_file

    _save_adapter(av.peft, target / "av", config)
    _save_adapter(ar.peft, target / "ar", config)
    weight = ar.head.weight.detach().to(torch.float16).cpu().contiguous()
    safetensors.torch.save_file({"weight": weight}, target / "ar" / HEAD)
    arrays = {"weight": projector.weight, "bias": projector.bias, "mean": projector.mean}
    halves = {name: np.ascontiguousarray(array.astype(np.float16)) for name, array in arrays.items()}
    save_file(halves, target / "av" / PROJECTOR)
    save_labels(head, target / "av")
    meta = _meta(config, d_model=av.width, character=writer.encode(config.prompting.injection_char)[0])
    write_meta(target / "av", {**meta, **_av_parts(config, projector, writer)})
    write_meta(target / "ar", {**meta, "role": "ar", "critic": {"extraction_layer_index": config.layer}})


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write `nla_meta.yaml`."""
    import yaml

    (folder / "nla_meta.yaml").write_text(
        yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=100)
    )


def _meta(config: RunConfig, *, d_model: int, character: int) -> dict[str, Any]:
    """Return the metadata that both halves share, in the official format."""
    return {
        "kind": "nla_model",
        "schema_version": 2,
        "role": "av",
        "base_checkpoint": config.model_name,
        "d_model": d_model,
        "extraction": {"layer_index": config.layer, "injection_scale": None, "mse_scale": "sqrt_d_model"},
        "tokens": {"injection_char": config.prompting.injection_char, "injection_token_id": character},
        "prompt_templates": {
            "av": config.prompting.av,
            "ar": config.prompting.ar,
            "chat": False,
            "end": config.prompting.end,
        },
    }


def _av_parts(config: RunConfig, projector: Projector, writer: ReadingWriter) -> dict[str, Any]:
    """Return the AV's metadata: the injection's neighbours, the projector and the labels."""
    character = writer.encode(config.prompting.injection_char)[0]
    return {
        "tokens": {
            "injection_char": config.prompting.injection_char,
            "injection_token_id": character,
            "injection_left_neighbor_id": writer.before[-1],
            "injection_right_neighbor_id": writer.between[0],
        },
        "projector": {"file": PROJECTOR, "rows": projector.rows, "scale": projector.scale, "mean": "mean"},
        "labels": {"file": label_head.FILE, "names": label_head.NAMES},
    }


def _save_adapter(peft_model: Any, folder: Path, config: RunConfig) -> None:
    import safetensors.torch
    import torch

    shutil.rmtree(folder, ignore_errors=True)
    peft_model.save_pretrained(folder)
    weights = safetensors.torch.load_file(folder / ADAPTER)
    halves = {name: value.to(torch.float16).contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(halves, folder / ADAPTER, metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes the local path of the base model, which is meaningless on other machines.
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = config.model_name
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
