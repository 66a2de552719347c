"""Steps 1 and 2 of a run: chats, then their activations split by chat."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workers.training import activations, chats, positions
from workers.training.config import RunConfig
from workers.training.dataset import Samples
from workers.training.progress import Progress

SPLITS: tuple[positions.Split, ...] = ("train", "held_out", "calibration")


def collect_chats(config: RunConfig, tokenizer: Any, prompts: list[str], path: Path, *, model: str) -> None:
    """Write one JSON line a chat: its token ids and how many of them are the prompt."""
    encoded = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        for prompt in prompts
    ]
    answers = chats.answer(encoded, config.chats, engine=config.engine, model=model, seed=config.seed)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w") as file:
        for prompt, reply in zip(encoded, answers, strict=True):
            file.write(json.dumps({"prompt_tokens": len(prompt), "tokens": [*prompt, *reply]}) + "\n")
    unfinished.replace(path)


def split_random(seed: int) -> random.Random:
    """Return what draws splits and positions.

    A stream of its own: seeded like the prompts' shuffle, a split of equal length repeats that
    permutation and puts the prompts of one source on one side.
    """
    return random.Random(f"{seed}:split")  # noqa: S311 - a choice of data, not a secret


def collect_samples(
    config: RunConfig, chats_file: Path, folder: Path, *, model: str, log: Callable[[str], None]
) -> None:
    """Read every chat's chosen positions and write `<split>.safetensors` into `folder`."""
    rng = split_random(config.seed)
    rows = [json.loads(line) for line in chats_file.read_text().splitlines()]
    first = max(
        config.activations.min_position,
        config.targets.context_tokens - 1,
        positions.shared_prefix([row["tokens"] for row in rows]),
    )
    splits = positions.split_chats(len(rows), config.activations, rng=rng)
    reader = activations.ActivationReader(model, layer=config.layer)
    progress = Progress("reading activations", total=len(rows), log=log)
    parts: dict[positions.Split, list[Samples]] = {split: [] for split in SPLITS}
    for document, row in enumerate(rows):
        tokens = row["tokens"]
        chosen = positions.choose_positions(
            row["prompt_tokens"], len(tokens), config.activations, first=first, rng=rng
        )
        if chosen:
            reading = reader.read(tokens, chosen)
            parts[splits[document]].append(_samples(reading, tokens, chosen, document, config))
        progress.advance(document + 1)
    for split, found in parts.items():
        _concatenate(found).save(folder / f"{split}.safetensors")


def _samples(
    reading: activations.ChatReading, tokens: list[int], chosen: list[int], document: int, config: RunConfig
) -> Samples:
    length = config.targets.context_tokens
    return Samples(
        vectors=reading.vectors,
        context=np.array([tokens[position + 1 - length : position + 1] for position in chosen], np.int64),
        next_tokens=reading.next_tokens,
        positions=np.array(chosen, np.int64),
        documents=np.full(len(chosen), document, np.int64),
    )


def _concatenate(parts: list[Samples]) -> Samples:
    names = ("vectors", "context", "next_tokens", "positions", "documents")
    return Samples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
