"""Prompts of the capture tests, and the Hugging Face model that judges the captured rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUBJECTS = ("the sea", "a slow train", "my first job", "bread", "old maps", "winter", "a lost key", "chess")
WISHES = ("a short story about", "three facts on", "a letter about", "a careful explanation of")


@pytest.fixture(scope="session")
def prompts(model_dir: Path) -> list[list[int]]:
    """32 different chat prompts of different lengths, as token ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    questions = [
        f"Write {wish} {subject}." + f" Mention {'very ' * (3 * number)}old friends." * (number % 3)
        for number, (wish, subject) in enumerate((wish, subject) for subject in SUBJECTS for wish in WISHES)
    ]
    chats: list[list[int]] = [
        list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
            )
        )
        for question in questions
    ]
    return chats


@pytest.fixture(scope="session")
def hidden_states(model_dir: Path) -> Callable[[list[int]], Any]:
    """Return the reference: all hidden states of a text, each of shape (tokens, d_model)."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)

    def run(token_ids: list[int]) -> Any:
        with torch.inference_mode():
            states = model(torch.tensor([token_ids]), output_hidden_states=True).hidden_states
        return [state[0] for state in states]

    return run
