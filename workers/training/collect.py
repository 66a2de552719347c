"""Steps 1 and 2 of a run: chats, then their activations split by chat."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workers.training import activations, chats, lines, positions, prompts
from workers.training.config import Chats, RunConfig, Sampled
from workers.training.dataset import Samples
from workers.training.labels import Labeller, Labels
from workers.training.progress import Progress

PORTION = 128
"""How many texts the model writes at a time; a killed run loses at most one portion."""

Log = Callable[[str], None]

SPLITS: tuple[positions.Split, ...] = ("train", "held_out", "calibration")


def sample_prompts(
    config: Sampled, writer: chats.Writer, tokenizer: Any, *, max_bytes: int, path: Path, log: Log
) -> list[str]:
    """Return `config.count` distinct prompts of the model's own; what was written is kept in `path`."""
    start = chats.user_turn(tokenizer)
    progress = Progress("sampling prompts", total=config.count, log=log)

    def step(texts: list[str]) -> list[str] | None:
        found = prompts.usable(texts, max_bytes=max_bytes)
        progress.advance(min(len(found), config.count))
        if len(found) >= config.count:
            return None
        written = writer.write(
            [start] * PORTION, max_new_tokens=config.max_new_tokens, temperature=config.temperature
        )
        # One that was cut off is no prompt.
        whole = [ids[:-1] for ids in written if ids and ids[-1] == tokenizer.eos_token_id]
        return [tokenizer.decode(ids) for ids in whole]

    lines.grow_lines(path, step)
    return prompts.usable(lines.read_lines(path), max_bytes=max_bytes)[: config.count]


def collect_chats(
    config: Chats, writer: chats.Writer, tokenizer: Any, texts: list[str], *, path: Path, log: Log
) -> None:
    """Write one JSON line a chat: its token ids and how many of them are the prompt."""
    encoded = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        for text in texts
    ]
    progress = Progress("answering prompts", total=len(encoded), log=log)

    def step(written: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        progress.advance(len(written))
        portion = encoded[len(written) : len(written) + PORTION]
        if not portion:
            return None
        answers = writer.write(
            portion, max_new_tokens=config.max_new_tokens, temperature=config.temperature
        )
        return [
            {"prompt_tokens": len(prompt), "tokens": [*prompt, *answer]}
            for prompt, answer in zip(portion, answers, strict=True)
        ]

    lines.grow_lines(path, step)


def split_random(seed: int) -> random.Random:
    """Return what draws splits and positions.

    A stream of its own: seeded like the prompts' shuffle, a split of equal length repeats that
    permutation and puts the prompts of one source on one side.
    """
    return random.Random(f"{seed}:split")  # noqa: S311 - a choice of data, not a secret


def collect_samples(
    config: RunConfig,
    chats_file: Path,
    folder: Path,
    *,
    reader: activations.ActivationReader,
    labeller: Labeller,
    tokenizer: Any,
    log: Log,
) -> None:
    """Read and label every chat's chosen positions and write `<split>.safetensors` into `folder`."""
    rng = split_random(config.seed)
    rows = lines.read_lines(chats_file)
    shared = positions.shared_prefix([row["tokens"] for row in rows])
    first = max(config.activations.min_position, config.targets.context_tokens - 1, shared)
    splits = positions.split_chats(len(rows), config.activations, rng=rng)
    closing = len(chats.turn_end(tokenizer))
    progress = Progress("reading activations", total=len(rows), log=log)
    parts: dict[positions.Split, list[Samples]] = {split: [] for split in SPLITS}
    for document, row in enumerate(rows):
        tokens, prompt_tokens = row["tokens"], row["prompt_tokens"]
        chosen = positions.choose_positions(
            prompt_tokens, len(tokens), config.activations, first=first, rng=rng
        )
        if chosen:
            reading = reader.read(tokens, chosen)
            request_tokens = prompt_tokens - shared
            seen = _Seen(tokens[shared:], request_tokens - closing, request_tokens)
            ends = [position + 1 - shared for position in chosen]
            labels = _label(labeller, tokenizer, seen, ends)
            parts[splits[document]].append(_samples(reading, labels, tokens, chosen, document, config))
        progress.advance(document + 1)
    for split, found in parts.items():
        _concatenate(found).save(folder / f"{split}.safetensors")


class _Seen(NamedTuple):
    """One chat without the tokens that all chats begin with."""

    tokens: list[int]
    subject_tokens: int
    """Where the user's words end."""
    request_tokens: int
    """Where the answer begins."""


def _label(labeller: Labeller, tokenizer: Any, seen: _Seen, ends: list[int]) -> Labels:
    """Label each position by what the model has seen of the chat by then."""
    texts = [tokenizer.decode(seen.tokens[:end], skip_special_tokens=True) for end in ends]
    subjects = [
        tokenizer.decode(seen.tokens[: min(end, seen.subject_tokens)], skip_special_tokens=True)
        for end in ends
    ]
    return labeller.label(texts, subjects, [end <= seen.request_tokens for end in ends])


def _samples(  # noqa: PLR0917  # the columns of one chat
    reading: activations.ChatReading,
    labels: Labels,
    tokens: list[int],
    chosen: list[int],
    document: int,
    config: RunConfig,
) -> Samples:
    length = config.targets.context_tokens
    return Samples(
        vectors=reading.vectors,
        context=np.array([tokens[position + 1 - length : position + 1] for position in chosen], np.int64),
        next_tokens=reading.next_tokens,
        topic=labels.topic,
        register=labels.register,
        kinds=labels.kinds,
        positions=np.array(chosen, np.int64),
        documents=np.full(len(chosen), document, np.int64),
    )


def _concatenate(parts: list[Samples]) -> Samples:
    names = Samples.__slots__
    return Samples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
