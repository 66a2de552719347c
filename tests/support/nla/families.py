"""Tiny random pairs of every model family, in the official trainer's format.

The architectures are real, the tokenizers are made here. Both halves come from one random base model, so
their outputs can be checked against it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tests.support.nla import reference

D_MODEL = 64
LAYER = 1
BLOCKS = 3
AV_TEMPLATE = (
    "Describe the vector.\n\nHere it is:\n\n<concept>{injection_char}</concept>\n\nPlease explain it."
)
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_LOUDER = ("q_norm", "k_norm", "post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The properties of one model family."""

    name: str
    injection_char: str
    injection_scale: float | str
    template: str
    specials: tuple[str, ...]
    eos: str
    bos: str | None
    """Starts every document, as in Llama and Gemma; None as in Qwen2."""
    build: Callable[[int], Any]
    """Makes the random base model for a vocabulary size."""


def _shape(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": D_MODEL,
        "intermediate_size": 96,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        # A wide initialization makes different vectors lead to different words.
        "initializer_range": 0.3,
    }


def _qwen2(vocabulary: int) -> Any:
    import transformers

    # Qwen2.5 has untied embeddings from 7B up.
    config = transformers.Qwen2Config(**_shape(vocabulary), tie_word_embeddings=False)
    return transformers.Qwen2ForCausalLM(config)


def _llama(vocabulary: int) -> Any:
    import transformers

    config = transformers.LlamaConfig(**_shape(vocabulary), tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config)


def _gemma3_text(vocabulary: int) -> dict[str, Any]:
    # The window is shorter than the prompts, so sliding and full attention differ.
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    window = {"sliding_window": 32, "layer_types": kinds}
    return {**_shape(vocabulary), **window, "head_dim": 32, "query_pre_attn_scalar": 32}


def _gemma3(vocabulary: int) -> Any:
    import transformers

    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**_gemma3_text(vocabulary)))


def _gemma3_wrapped(vocabulary: int) -> Any:
    import transformers

    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(
        text_config=_gemma3_text(vocabulary), vision_config=vision, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config)


QWEN2 = Family(
    name="qwen2",
    injection_char="㈎",
    injection_scale=15.0,
    template=_CHATML,
    specials=("<|im_start|>", "<|im_end|>"),
    eos="<|im_end|>",
    bos=None,
    build=_qwen2,
)
LLAMA = Family(
    name="llama",
    injection_char="㎡",
    injection_scale="sqrt_d_model",
    template=_LLAMA,
    specials=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    eos="<|eot_id|>",
    bos="<|begin_of_text|>",
    build=_llama,
)
GEMMA3 = Family(
    name="gemma3",
    injection_char="㈜",
    injection_scale=80.0,
    template=_GEMMA,
    specials=("<bos>", "<start_of_turn>", "<end_of_turn>"),
    eos="<end_of_turn>",
    bos="<bos>",
    build=_gemma3,
)
GEMMA3_WRAPPED = replace(GEMMA3, name="gemma3-wrapped", injection_scale="raw", build=_gemma3_wrapped)
FAMILIES = (QWEN2, LLAMA, GEMMA3, GEMMA3_WRAPPED)


def write_tokenizer(family: Family, folder: Path) -> Any:
    """Write a tokenizer of ASCII letters, some words and the family's own tokens, and return it."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Detokenizers disagree about incomplete multi-byte characters, so only ASCII is included.
    letters = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol.isascii()]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(family.specials),
        initial_alphabet=[*letters, "Ġ", "Ċ"],
        show_progress=False,
    )
    texts = [AV_TEMPLATE, AR_TEMPLATE, "user assistant model", "<explanation> </explanation>"]
    tokenizer.train_from_iterator(
        [text.replace("<concept>{injection_char}", "") for text in texts], trainer
    )
    # An added token cannot merge with its neighbours, as in the released vocabularies.
    tokenizer.add_tokens([AddedToken(family.injection_char, normalized=False)])
    if family.bos is not None:
        opening = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[opening]
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=family.bos, eos_token=family.eos, pad_token=family.eos
    )
    fast.chat_template = family.template
    fast.save_pretrained(folder)
    return fast


def meta(family: Family, tokenizer: Any, role: str) -> dict[str, Any]:
    """Return the official trainer's metadata of one half, with its names `actor` and `critic`."""
    char = family.injection_char
    ids = reference.prompt_ids(tokenizer, AV_TEMPLATE, char)
    place = ids.index(tokenizer.encode(char, add_special_tokens=False)[0])
    content: dict[str, Any] = {
        "kind": "nla_model",
        "schema_version": 2,
        "role": role,
        "stage": "rl",
        "base_checkpoint": f"toys/{family.name}",
        "d_model": D_MODEL,
        "extraction": {
            "injection_scale": family.injection_scale if role == "actor" else None,
            "mse_scale": 8.0,
        },
        "tokens": {
            "injection_char": char,
            "injection_token_id": ids[place],
            "injection_left_neighbor_id": ids[place - 1],
            "injection_right_neighbor_id": ids[place + 1],
            "critic_suffix_ids": reference.suffix_ids(tokenizer, AR_TEMPLATE) if role == "critic" else None,
        },
        "prompt_templates": {"actor": AV_TEMPLATE, "critic": AR_TEMPLATE},
    }
    if role == "critic":
        content["critic"] = {"extraction_layer_index": LAYER}
    return content


def write_pair(family: Family, folder: Path, *, seed: int = 0) -> Path:
    """Write `av/` (a random base model) and `ar/` (derived from the same base); return `folder`."""
    import torch

    torch.manual_seed(seed)
    tokenizer = write_tokenizer(family, folder / "av")
    tokenizer.save_pretrained(folder / "ar")
    base = family.build(len(tokenizer))
    # The family's default id is an ordinary letter in the toy vocabulary.
    for config in (base.config, base.config.get_text_config(), base.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():
        for name, value in base.named_parameters():
            # Norms and biases start at the identity, so tests could not notice if they were ignored.
            if "norm" in name or name.endswith("bias"):
                value.add_(torch.randn_like(value) * 0.1)
            # Gemma ties its output to its input, so a random model repeats the last token. Sharper
            # attention and larger block outputs make the output depend on the vector.
            if family.template == _GEMMA and name.rpartition(".")[0].endswith(_LOUDER):
                value.add_(3.0)
    base.save_pretrained(folder / "av")
    _write_reconstructor(base, folder / "ar")
    for role, half in (("actor", "av"), ("critic", "ar")):
        write_meta(folder / half, meta(family, tokenizer, role))
    return folder


def write_meta(folder: Path, content: dict[str, Any]) -> None:
    (folder / "nla_meta.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def read_meta(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "nla_meta.yaml").read_text())
    return content


def _write_reconstructor(base: Any, folder: Path) -> None:
    """Write blocks 0..K of `base` without final norm and lm_head, and a random head."""
    import copy

    import safetensors.torch
    import torch

    cut = copy.deepcopy(base)
    config = getattr(cut.config, "text_config", cut.config)
    config.num_hidden_layers = LAYER + 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: LAYER + 1]
    inner = getattr(cut.model, "language_model", cut.model)
    inner.layers = inner.layers[: LAYER + 1]
    inner.norm = torch.nn.Identity()
    # For a tied lm_head, save_pretrained writes only the embedding table.
    if not getattr(config, "tie_word_embeddings", False):
        cut.lm_head = torch.nn.Identity()
    cut.save_pretrained(folder)
    safetensors.torch.save_file(
        {"weight": torch.eye(D_MODEL) + 0.05 * torch.randn(D_MODEL, D_MODEL)},
        folder / "value_head.safetensors",
    )
