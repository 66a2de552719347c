"""The first steps of a run: collect chats, then their activations, split by chat."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from workers.training.config import Chats, RunConfig
from workers.training.data import activations, chats, lines, positions, prompts
from workers.training.data.dataset import Samples
from workers.training.data.labels import Labels
from workers.training.fit import precision
from workers.training.progress import Progress

PORTION = 512
"""Number of texts generated per call; a killed run loses at most one portion."""

_READ_TOGETHER, _READ_TOGETHER_CUDA = 16, 128
Log = Callable[[str], None]

SPLITS: tuple[positions.Split, ...] = ("train", "held_out", "calibration")


def collect_chats(
    config: Chats,
    writer: chats.Writer,
    tokenizer: Any,
    chosen: Sequence[prompts.Prompt],
    *,
    path: Path,
    seed: int,
    log: Log,
) -> None:
    """Write one JSON line per chat: token ids, number of prompt tokens, and origin."""
    encoded = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.text}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        for prompt in chosen
    ]
    progress = Progress("answering prompts", total=len(encoded), log=log)

    def step(written: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        progress.advance(len(written))
        portion = slice(len(written), len(written) + PORTION)
        if not encoded[portion]:
            return None
        answers = writer.write(
            encoded[portion],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            # A seed per portion gives a resumed run the same answers as an uninterrupted one.
            seed=seed + len(written),
        )
        return [
            {"origin": prompt.origin, "prompt_tokens": len(ids), "tokens": [*ids, *answer]}
            for prompt, ids, answer in zip(chosen[portion], encoded[portion], answers, strict=True)
        ]

    lines.grow_lines(path, step)


class Chat(NamedTuple):
    """One chat with its chosen positions."""

    tokens: list[int]
    prompt_tokens: int
    is_real: bool
    document: int
    chosen: list[int]


class Labelling(Protocol):
    """A source of labels for chosen positions."""

    def label(self, split: positions.Split, found: Sequence[Chat]) -> Labels:
        """Return the labels of the chats' chosen positions, in order."""


def choose_chats(config: RunConfig, rows: Sequence[dict[str, Any]]) -> dict[positions.Split, list[Chat]]:
    """Split the chats and choose their positions; each split is sorted by length."""
    shared = positions.shared_prefix([row["tokens"] for row in rows])
    first = max(config.activations.min_position, config.targets.tail_tokens - 1, shared)
    by_split: dict[positions.Split, list[Chat]] = {split: [] for split in SPLITS}
    for document, row in enumerate(rows):
        prompt = row["tokens"][: row["prompt_tokens"]]
        chosen = positions.choose_positions(
            len(prompt),
            len(row["tokens"]),
            config.activations,
            first=first,
            rng=positions.chat_random(prompt, config.seed),
        )
        if chosen:
            chat = Chat(row["tokens"], len(prompt), row["origin"] == "real", document, chosen)
            by_split[positions.split_of(prompt, config.activations)].append(chat)
    for chats_of_split in by_split.values():
        chats_of_split.sort(key=lambda chat: len(chat.tokens))
    return by_split


def collect_samples(
    config: RunConfig,
    rows: Sequence[dict[str, Any]],
    folder: Path,
    *,
    reader: activations.ActivationReader,
    labelling: Labelling,
    log: Log,
) -> None:
    """Read and label every chat's chosen positions, and write `<split>.safetensors` into `folder`.

    Existing splits are skipped. Splits that figures are measured on are read in float32. Raises ValueError
    for a split without chats.
    """
    together = precision.sized(cpu=_READ_TOGETHER, cuda=_READ_TOGETHER_CUDA)
    for split, chosen in choose_chats(config, rows).items():
        path = folder / f"{split}.safetensors"
        if path.exists():
            continue
        if not chosen:
            raise ValueError(f"activations.{split}_share: no chat fell to {split}; more prompts are needed")
        progress = Progress(f"reading activations: {split}", total=len(chosen), log=log)
        parts = []
        with precision.autocast() if split == "train" else nullcontext():
            for start in range(0, len(chosen), together):
                portion = chosen[start : start + together]
                readings = reader.read([chat.tokens for chat in portion], [chat.chosen for chat in portion])
                parts += [
                    to_samples(*pair, tail_tokens=config.targets.tail_tokens)
                    for pair in zip(portion, readings, strict=True)
                ]
                progress.advance(start + len(portion))
        log(f"labelling {split}")
        labels = labelling.label(split, chosen)
        dataclasses.replace(Samples.join(parts), **labels._asdict()).save(path)


def to_samples(chat: Chat, reading: activations.ChatReading, *, tail_tokens: int) -> Samples:
    """Return a chat's rows with placeholder labels."""
    count = len(chat.chosen)
    unknown = np.zeros(count, np.int64)
    return Samples(
        vectors=reading.vectors,
        context=np.array(
            [chat.tokens[place + 1 - tail_tokens : place + 1] for place in chat.chosen], np.int64
        ),
        next_tokens=reading.next_tokens,
        areas=np.zeros((count, 1), np.float32),
        topic=unknown,
        register=unknown,
        kinds=unknown,
        positions=np.array(chat.chosen, np.int64),
        is_answer=np.array([place >= chat.prompt_tokens for place in chat.chosen], np.int64),
        is_real=np.full(count, int(chat.is_real), np.int64),
        documents=np.full(count, chat.document, np.int64),
    )
