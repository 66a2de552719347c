"""Chats of different lengths for the capture tests."""

from itertools import cycle, product
from pathlib import Path

SUBJECTS = ("the sea", "a slow train", "my first job", "bread", "old maps", "winter", "a lost key", "chess")
WISHES = ("a short story about", "three facts on", "a letter about", "a careful explanation of")
VOICES = ("Speak plainly.", "You are a patient teacher of children.")


def chat_prompts(model_dir: Path) -> list[list[int]]:
    """Return 64 distinct chat prompts of different lengths, as token ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    wishes = zip(
        cycle((0, 4, 8, 12, 16)), *zip(*product(VOICES, WISHES, SUBJECTS), strict=True), strict=False
    )
    return [
        list(
            tokenizer.apply_chat_template(
                [
                    {"role": "system", "content": f"{number}. {voice}"},
                    {
                        "role": "user",
                        "content": f"Write {wish} {subject}.{' Mention friends.' * (number % 5 * 4)}",
                    },
                ],
                add_generation_prompt=True,
                return_dict=False,
            )
        )
        for number, (length, voice, wish, subject) in enumerate(wishes)
    ]
