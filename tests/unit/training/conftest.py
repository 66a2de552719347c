"""A toy model with its own tokenizer: random weights, real architecture, seconds instead of minutes."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from workers.training.config import Prompting
from workers.training.targets import ReadingWriter

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


@pytest.fixture(scope="session")
def toy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SUBTEXT_HOME with a three-block Llama in models/toy, and a wheel of chats that people had."""
    home = tmp_path_factory.mktemp("home")
    _write_model(home / "models" / "toy")
    (home / "wheels").mkdir()
    chats = [{"conversations": [{"from": "human", "value": text}]} for text in _CATS]
    with zipfile.ZipFile(home / "wheels" / "toy_chats-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("chats.json", json.dumps(chats))
    return home


def _write_model(folder: Path) -> None:
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*_SUMS, *_CATS, _READING] * 20, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    fast.chat_template = _TEMPLATE
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def toy_tokenizer(toy_home: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(toy_home / "models" / "toy")


@pytest.fixture(scope="session")
def toy_writer(toy_tokenizer: Any) -> ReadingWriter:
    return ReadingWriter(toy_tokenizer, Prompting(**PROMPTING))


@pytest.fixture
def toy_config(tmp_path: Path) -> Path:
    """A run file for the toy model, beside its own prompts."""
    return write_run(tmp_path)


def write_run(folder: Path) -> Path:
    """Write a run file for the toy model and what stands beside it."""
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
        "name": "toy-run",
        "model": "models/toy",
        "model_name": "toy",
        "model_licence": "none",
        "layer": 1,
        "threads": 1,
        "prompts": {"own": "prompts.txt", "sources": [{**source, "licence": "none", "count": 20}]},
        "engine": "transformers",
        "chats": {"max_new_tokens": 12, "temperature": 0.7},
        "activations": {"answer_positions": 4, "held_out_share": 0.3, "calibration_share": 0.2},
        "targets": {"tail_tokens": 6, "taxonomy": "taxonomy.yaml"},
        "labels": {"hidden": 8, "epochs": 4},
        "projection": {"tokens_before": 2},
        "ar": training,
        "av": training,
        "adaptation": {**training, "vectors": 16, "candidates": 2, "max_examples": 32},
        "winners": {**training, "max_examples": 32},
        "prompting": PROMPTING,
        "evaluation": {"round_trip_vectors": 12, "candidates": 2, "bootstrap_rounds": 20},
        "export": str(folder / "shipped"),
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    return path
