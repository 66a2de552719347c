"""Choose which positions of a chat are read, and which chats train, test and calibrate; pure."""

import random
from collections.abc import Sequence
from typing import Literal

from workers.training.config import Activations

Split = Literal["train", "held_out", "calibration"]


def shared_prefix(chats: Sequence[list[int]]) -> int:
    """How many first tokens all chats have in common: they read the same everywhere and teach nothing."""
    shortest, longest = min(chats), max(chats)
    return next((index for index, token in enumerate(shortest) if token != longest[index]), len(shortest))


def choose_positions(
    prompt_tokens: int, total_tokens: int, config: Activations, *, first: int, rng: random.Random
) -> list[int]:
    """Return sorted distinct positions >= `first`: the prompt's end, its body, and the answer."""
    end = max(first, prompt_tokens - config.prompt_end_positions)
    body = range(first, end)
    answer = range(max(first, prompt_tokens), total_tokens)
    return sorted(
        {
            *range(end, min(prompt_tokens, total_tokens)),
            *rng.sample(body, min(config.prompt_positions, len(body))),
            *rng.sample(answer, min(config.answer_positions, len(answer))),
        }
    )


def split_chats(count: int, config: Activations, *, rng: random.Random) -> list[Split]:
    """Assign every chat to one split: whole chats, so that no text is on both sides."""
    held_out = max(1, round(count * config.held_out_share))
    calibration = max(1, round(count * config.calibration_share))
    splits: list[Split] = []
    splits.extend("held_out" for _ in range(held_out))
    splits.extend("calibration" for _ in range(calibration))
    splits.extend("train" for _ in range(count - len(splits)))
    rng.shuffle(splits)
    return splits
