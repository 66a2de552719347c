"""LoRA adapters on a frozen model."""

from typing import Any

from workers.training.config import Training

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapters(model: Any, config: Training, *, task: str | None = None) -> Any:
    """Freeze the model and add a LoRA of the configured rank to every linear layer of its blocks."""
    import peft

    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=0.0, target_modules=LINEAR, task_type=task
        ),
    )
