"""Choose the positions of a chat, and assign chats to splits; pure."""

import hashlib
import random
from collections.abc import Sequence
from typing import Literal

from workers.training.config import Activations

Split = Literal["train", "held_out", "calibration"]


def shared_prefix(chats: Sequence[list[int]]) -> int:
    """Return the number of leading tokens that all chats share, which carry no information about a chat."""
    shortest, longest = min(chats), max(chats)
    return next((index for index, token in enumerate(shortest) if token != longest[index]), len(shortest))


def choose_positions(
    prompt_tokens: int, total_tokens: int, config: Activations, *, first: int, rng: random.Random
) -> list[int]:
    """Return sorted distinct positions >= `first` from the prompt's body, its end, and the answer."""
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


def split_of(prompt: Sequence[int], config: Activations) -> Split:
    """Assign a chat to a split by a hash of its prompt, so that equal prompts share a split."""
    digest = hashlib.sha256(" ".join(map(str, prompt)).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < config.held_out_share:
        return "held_out"
    return "calibration" if share < config.held_out_share + config.calibration_share else "train"


def chat_random(prompt: Sequence[int], seed: int) -> random.Random:
    """Return a generator for one chat's positions that does not depend on the run's other chats."""
    return random.Random(f"{seed}:{' '.join(map(str, prompt))}")  # noqa: S311 - a choice of data, not a secret
