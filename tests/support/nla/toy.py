"""Toy pairs: a random two-block Llama behind the real SmolLM2 tokenizer, and its `nla_meta.yaml`."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

D_MODEL = 64
LAYER = 1
BLOCKS = 3
AV_TEMPLATE = "Say what this activation of a language model holds: <concept>{injection_char}</concept>"
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def meta(role: str, *, d_model: int = D_MODEL, layer: int = LAYER) -> dict[str, Any]:
    """Return the content of a valid `nla_meta.yaml`, with the token ids of SmolLM2."""
    return {
        "kind": "nla_model",
        "schema_version": 2,
        "role": role,
        "stage": "sft",
        "base_checkpoint": "toys/Toy-Instruct",
        "d_model": d_model,
        "extraction": {
            "layer_index": layer,
            "injection_scale": 32 if role == "av" else None,
            "mse_scale": "sqrt_d_model",
        },
        "tokens": {
            "injection_char": "§",
            "injection_token_id": 31854,
            "injection_left_neighbor_id": 46,
            "injection_right_neighbor_id": 9617,
            "critic_suffix_ids": [2692, 46, 2067, 18347, 46],
        },
        "prompt_templates": {"av": AV_TEMPLATE, "ar": AR_TEMPLATE},
        "critic": {"extraction_layer_index": layer},
        "trained_on": ["nothing"],
    }


def write_meta(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nla_meta.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))


def write_description(folder: Path, role: str, *, blocks: int, d_model: int = D_MODEL) -> None:
    """Write metadata, configuration and placeholder weights for checks that load no model."""
    write_meta(folder, meta(role))
    config = {"model_type": "llama", "hidden_size": d_model, "num_hidden_layers": blocks}
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, blocks=blocks, d_model=d_model)


def write_weights(folder: Path, *, blocks: int, d_model: int = D_MODEL, vocabulary: int = 31855) -> None:
    """Write placeholder weights with valid names and an embedding table of valid shape."""
    import numpy as np
    from safetensors.numpy import save_file

    tensors = {f"model.layers.{block}.norm.weight": np.ones(1, np.float16) for block in range(blocks)}
    tensors["model.embed_tokens.weight"] = np.zeros((vocabulary, d_model), np.float16)
    save_file(tensors, folder / "model.safetensors")


def write_base(folder: Path, tokenizer: Path, *, seed: int = 0) -> Path:
    """Write a random model with the tokenizer of SmolLM2."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=D_MODEL,
        intermediate_size=96,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=49152,
        max_position_embeddings=512,
        # A wide initialization makes different vectors lead to different words.
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    copy_tokenizer(tokenizer, folder)
    return folder


def copy_tokenizer(source: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)


def write_head(path: Path, d_model: int = D_MODEL) -> None:
    import safetensors.torch
    import torch

    safetensors.torch.save_file({"weight": torch.eye(d_model)}, path)


def write_shipped(folder: Path, base: Path, *, seed: int = 1) -> Path:
    """Write a shipped pair: random adapters on a toy base, and an identity head."""
    import peft
    import torch
    import transformers

    for role, loader, blocks in (
        ("av", transformers.AutoModelForCausalLM, BLOCKS),
        ("ar", transformers.AutoModel, LAYER + 1),
    ):
        model = loader.from_pretrained(base, num_hidden_layers=blocks, dtype=torch.float32)
        lora = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
        adapted = peft.get_peft_model(model, lora)
        torch.manual_seed(seed)
        with torch.no_grad():
            for value in adapted.parameters():
                if value.requires_grad:
                    value.normal_(std=0.1)
        adapted.half().save_pretrained(folder / role)
        write_meta(folder / role, meta(role))
    write_head(folder / "ar" / "head.safetensors")
    (folder / "card.json").write_text(json.dumps({"name": "toy"}))
    return folder


ROWS = 3
OWN_AV_TEMPLATE = (
    "<|im_start|>user\nActivation: {injection_char} Token:{token}<|im_end|>\n"
    '<|im_start|>assistant\n{labels} Expects "'
)
OWN_AR_TEMPLATE = "<|im_start|>assistant\n{explanation}{token}"
END = "<|endoftext|>"
SCALE = 0.5


def own_meta(role: str, *, d_model: int = D_MODEL, layer: int = LAYER) -> dict[str, Any]:
    """Return the `nla_meta.yaml` of a pair with a projector, the read token and labels."""
    content = meta(role, d_model=d_model, layer=layer)
    content["extraction"]["injection_scale"] = None
    content["tokens"].update(
        injection_left_neighbor_id=216, injection_right_neighbor_id=33135, critic_suffix_ids=None
    )
    content["prompt_templates"] = {"av": OWN_AV_TEMPLATE, "ar": OWN_AR_TEMPLATE, "chat": False, "end": END}
    if role == "av":
        content["projector"] = {
            "file": "projector.safetensors",
            "rows": ROWS,
            "scale": SCALE,
            "mean": "mean",
        }
        content["labels"] = {"file": "labels.safetensors", "names": "labels.json"}
    return content


LABEL_NAMES: dict[str, Any] = {
    "areas": ["medicine", "law"],
    "topics": {"headaches": "medicine", "contracts": "law", "law": "law"},
    "registers": ["a question", "an answer"],
    "kinds": ["self-harm", "fraud"],
    "area_above": 0.5,
    "topic_above": 0.3,
    "kind_above": {"self-harm": 0.6, "fraud": 1.1},
    "hidden": 5,
}


def write_stages(folder: Path, *, d_model: int = D_MODEL, rows: int = ROWS, seed: int = 0) -> None:
    """Write a random projector and label head into an AV's folder."""
    import numpy as np
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)

    def random(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    save_file(
        {
            "weight": random(rows * d_model, d_model) / d_model,
            "bias": random(rows * d_model) / 10,
            "mean": random(d_model) / d_model,
        },
        folder / "projector.safetensors",
    )
    save_file(
        {
            "hidden_weight": random(5, d_model),
            "hidden_bias": random(5),
            "out_weight": random(9, 5),
            "out_bias": random(9),
        },
        folder / "labels.safetensors",
    )
    (folder / "labels.json").write_text(json.dumps(LABEL_NAMES))


def write_own_pair(folder: Path, base: Path) -> Path:
    """Write a pair in Subtext's format; the AV is `base`, the AR its blocks 0..K."""
    import torch
    import transformers

    for role, loader, blocks in (
        ("av", transformers.AutoModelForCausalLM, BLOCKS),
        ("ar", transformers.AutoModel, LAYER + 1),
    ):
        model = loader.from_pretrained(base, num_hidden_layers=blocks, dtype=torch.float32)
        model.save_pretrained(folder / role)
        copy_tokenizer(base, folder / role)
        write_meta(folder / role, own_meta(role))
    write_stages(folder / "av")
    write_head(folder / "ar" / "value_head.safetensors")
    return folder
