"""Adapters on a frozen model, and one forward pass that computes a batch's shared prefix once."""

from collections.abc import Sequence
from typing import Any

from workers.training.config import Training

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapters(model: Any, config: Training, *, task: str | None = None) -> Any:
    """Freeze the model and put a LoRA of the configured rank on every linear layer of its blocks."""
    import peft

    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules=LINEAR, task_type=task
        ),
    )


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """How many first tokens all sequences share, leaving each at least one of its own."""
    shortest, longest = min(sequences), max(sequences)
    limit = min(len(sequence) for sequence in sequences) - 1
    shared = (index for index in range(limit) if shortest[index] != longest[index])
    return next(shared, limit)


def prefixed_forward(backbone: Any, prefix: Any, embeddings: Any) -> Any:
    """Run `embeddings` (batch, tokens, d) behind one shared prefix of token ids; returns hidden states.

    The prefix is computed once and its keys and values are repeated: gradients flow through them as
    if every row had computed its own (checked to 1e-5), at a fraction of the time.
    Rows are padded on the right; causal attention never lets a token see the padding behind it.
    """
    import transformers

    cache = transformers.DynamicCache(config=backbone.config)
    if len(prefix):
        backbone(prefix[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(embeddings))
    return backbone(inputs_embeds=embeddings, past_key_values=cache, use_cache=True).last_hidden_state
