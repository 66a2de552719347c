"""Tiny random models, with which an engine starts in seconds.

Tests of capture need no sensible text. The blocks of random models differ more than trained ones, so a
wrong layer is easy to detect.
"""

from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": None,  # so that no token ends a text
}
LAYERS = 4
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 16,
    "block_size": 32,
    "skip_tokenizer_init": True,
    "served_model_name": "tiny",
}


def make_llama(folder: Path, **changes: Any) -> Path:
    """Save a Llama, which has vLLM's interface for auxiliary hidden states."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _save(LlamaForCausalLM, LlamaConfig(**{**SIZES, **changes}), folder)


def make_gemma3(folder: Path) -> Path:
    """Save a Gemma 3, whose vLLM class lacks that interface and has a stand-in in the plugin."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(**SIZES, query_pre_attn_scalar=32, sliding_window=32, pad_token_id=0)
    return _save(Gemma3ForCausalLM, config, folder)


def make_gemma(folder: Path) -> Path:
    """Save a first-generation Gemma, which has neither the interface nor a stand-in."""
    from transformers import GemmaConfig, GemmaForCausalLM

    return _save(GemmaForCausalLM, GemmaConfig(**SIZES, pad_token_id=0), folder)


def describe_mixtral(folder: Path) -> Path:
    """Save the configuration of a model with experts, without its weights."""
    from transformers import MixtralConfig

    sizes = SIZES | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "architectures": ["MixtralForCausalLM"],
    }
    MixtralConfig(**sizes).save_pretrained(folder)
    return folder


def with_end_token(model_dir: Path, folder: Path, token_id: int) -> Path:
    """Save a copy of the model with another end token, and return its folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    model.config.eos_token_id = model.generation_config.eos_token_id = token_id
    model.save_pretrained(folder)
    return folder


def shortened(model_dir: Path, folder: Path, blocks: int) -> Path:
    """Save a copy of the model with its first blocks only, and without a tokenizer; return its folder."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(model_dir, num_hidden_layers=blocks).save_pretrained(folder)
    return folder


def _save(model_class: Any, config: Any, folder: Path) -> Path:
    import torch

    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    return folder


def prompts(count: int, *, seed: int = 0) -> list[list[int]]:
    """Return random prompts of 12 to 60 tokens."""
    import random

    chance = random.Random(seed)  # noqa: S311  # not for secrets
    return [[chance.randrange(3, 512) for _ in range(chance.randrange(12, 61))] for _ in range(count)]
