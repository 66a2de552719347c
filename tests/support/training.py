"""Toy models for the trainer: real architectures with random weights and their own tokenizers."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SUMS = [f"What is {left} plus {right}, and why is it so?" for left in range(4) for right in range(5)]
_CATS = [f"Does a cat with {count} kittens like dogs and other cats?" for count in range(20)]
_READING = 'An answer about sums (arithmetic), touching on fraud. Expects " so". Reads "why is it'

_TAXONOMY = """
version: 2
topic_floor: 0.1
topics: {arithmetic: adding numbers, animals: cats and dogs, birds: feathers}
areas: {sums: [arithmetic], nature: [animals, birds]}
registers: [{name: code, pattern: "def "}]
kinds: [{name: fraud, pattern: scam}, {name: kittens, pattern: kittens}]
"""
PROMPTING = {
    "injection_char": "Z",
    "av": "<|im_start|>user\nActivation: {injection_char} Token:{token}<|im_end|>\n"
    '<|im_start|>assistant\n{labels} Expects "',
    "ar": "<|im_start|>assistant\n{explanation}{token}",
    "end": "<|endoftext|>",
}

_TURN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


class Family(NamedTuple):
    """Properties that differ between model families, none of which the trainer may depend on."""

    name: str
    tokens: tuple[str, ...]
    """Special tokens."""
    roles: dict[str, str]
    """The special tokens with a role, by role."""
    template: str
    """The tokenizer's chat template, or the run's if `has_template` is false."""
    has_template: bool
    prompting: dict[str, str]
    build: Callable[..., Any]

    @property
    def model(self) -> str:
        """The model's folder, relative to SUBTEXT_HOME."""
        return "models/toy" if self.name == "llama" else f"models/toy-{self.name}"


def _llama(**settings: Any) -> Any:
    import transformers

    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SHAPE, **settings))


def _gemma3(**settings: Any) -> Any:
    """Return a Gemma 3: scaled embeddings, two kinds of attention, and its own sampling defaults."""
    import transformers

    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    attention = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "layer_types": kinds}
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**_SHAPE, **attention, **settings))
    model.generation_config.update(do_sample=True, top_k=3, top_p=0.5)
    return model


LLAMA = Family(
    name="llama",
    tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    roles={"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"},
    template=_TEMPLATE,
    has_template=True,
    prompting=PROMPTING,
    build=_llama,
)
GEMMA3 = Family(
    name="gemma3",
    tokens=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    roles={"eos_token": "<eos>", "pad_token": "<pad>", "bos_token": "<bos>"},
    template=_TURN_TEMPLATE,
    has_template=False,
    prompting={
        "injection_char": "Z",
        "av": "<bos><start_of_turn>user\nActivation: {injection_char} Token:{token}<end_of_turn>\n"
        '<start_of_turn>model\n{labels} Expects "',
        "ar": "<bos><start_of_turn>model\n{explanation}{token}",
        "end": "<eos>",
    },
    build=_gemma3,
)
FAMILIES = (LLAMA, GEMMA3)
in_every_family = pytest.mark.parametrize(
    "toy_family", FAMILIES, indirect=True, ids=lambda family: family.name
)


def write_home(home: Path) -> None:
    """Write three-block models, and a wheel with prompts of real users."""
    for family in FAMILIES:
        _write_model(family, home / family.model)
    (home / "wheels").mkdir()
    chats = [{"conversations": [{"from": "human", "value": text}]} for text in _CATS]
    with zipfile.ZipFile(home / "wheels" / "toy_chats-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("chats.json", json.dumps(chats))


def _write_model(family: Family, folder: Path) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(family.tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*_SUMS, *_CATS, _READING] * 20, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **family.roles)
    fast.chat_template = family.template if family.has_template else None
    torch.manual_seed(0)
    model = family.build(
        vocab_size=len(fast), bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def write_run(folder: Path, family: Family = LLAMA) -> Path:
    """Write a run file for a toy model, and the files that the run file names."""
    (folder / "chat.jinja").write_text(family.template)
    (folder / "prompts.txt").write_text("\n".join(_SUMS))
    (folder / "taxonomy.yaml").write_text(_TAXONOMY)
    training = {
        "rank": 4,
        "alpha": 8,
        "learning_rate": 1e-3,
        "batch": 8,
        "max_examples": 64,
        "checkpoint_minutes": 0,
    }
    source = {"wheel": "toy_chats-1.0", "member": "chats.json", "kind": "sharegpt", "origin": "real"}
    settings = {
        "name": f"{Path(family.model).name}-run",
        "model": family.model,
        "model_name": "toy",
        "model_licence": "none",
        "layer": 1,
        "threads": 1,
        "prompts": {"own": "prompts.txt", "sources": [{**source, "licence": "none", "count": 20}]},
        "engine": "transformers",
        "chats": {
            "max_new_tokens": 12,
            "temperature": 0.7,
            **({} if family.has_template else {"template": "chat.jinja"}),
        },
        "activations": {"answer_positions": 4, "held_out_share": 0.3, "calibration_share": 0.2},
        "targets": {"tail_tokens": 6, "taxonomy": "taxonomy.yaml"},
        "labels": {"hidden": 8, "epochs": 4},
        "projection": {"tokens_before": 2},
        "ar": training,
        "av": training,
        "adaptation": {**training, "vectors": 16, "candidates": 2, "max_examples": 32},
        "winners": {**training, "max_examples": 32},
        "prompting": family.prompting,
        "evaluation": {"round_trip_vectors": 12, "candidates": 2, "bootstrap_rounds": 20},
        "export": str(folder / "shipped"),
        **({} if family.has_template else {"card": str(folder / "cards")}),
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    return path
