"""A toy model with its own tokenizer: random weights, real architecture, seconds instead of minutes."""

from pathlib import Path

import pytest
import yaml

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PROMPTS = [f"What is {left} plus {right}, and why is it so?" for left in range(4) for right in range(5)]


_TAXONOMY = """
version: 1
topic_floor: 0.1
topics: {arithmetic: adding numbers, animals: cats and dogs}
registers: [{name: code, pattern: "def "}]
kinds: [{name: fraud, pattern: scam}]
"""


@pytest.fixture(scope="session")
def toy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SUBTEXT_HOME with a three-block Llama in models/toy."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    home = tmp_path_factory.mktemp("home")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    lines = [
        *_PROMPTS,
        "<explanation> </explanation> It has read after and expects. This is an answer about",
    ]
    tokenizer.train_from_iterator(lines * 20, trainer)
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
    folder = home / "models" / "toy"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return home


@pytest.fixture
def toy_config(tmp_path: Path) -> Path:
    """A run file for the toy model, beside its own prompts."""
    (tmp_path / "prompts.txt").write_text("\n".join(_PROMPTS))
    (tmp_path / "taxonomy.yaml").write_text(_TAXONOMY)
    training = {"rank": 4, "alpha": 8, "learning_rate": 1e-3, "batch": 8, "max_examples": 64}
    settings = {
        "name": tmp_path.name,
        "model": "models/toy",
        "model_name": "toy",
        "model_licence": "none",
        "layer": 1,
        "threads": 1,
        "prompts": {"own": "prompts.txt"},
        "engine": "transformers",
        "chats": {"max_new_tokens": 16, "temperature": 0.7},
        "activations": {"prompt_positions": 2, "answer_positions": 4},
        "targets": {"context_tokens": 6, "taxonomy": "taxonomy.yaml"},
        "ar": training,
        "av": training,
        "adaptation": {**training, "readings": 8, "max_examples": 16},
        "injection": {
            "character": "Z",
            "scale": 1.0,
            "template": "Say: <concept>{injection_char}</concept>",
        },
        "evaluation": {"round_trip_vectors": 8, "bootstrap_rounds": 20},
        "export": str(tmp_path / "shipped"),
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    return path
