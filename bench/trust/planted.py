"""Planted concepts: directions added at half depth, with the text unchanged.

Each trial is a held-out chat whose activations were steered; its text says nothing about the concept, so a
text classifier is at chance by construction. Benign trials are other held-out chats, as they were. Steering
along random directions of the same length is the control: what is found there is a false alarm.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trust.reading import Incidents, Read, read_all
from bench.trust.steering import (
    Depths,
    Planted,
    Steerer,
    Vectors,
    difference_of_means,
    random_directions,
    read_words,
)
from workers.nla.decoder import Decoder
from workers.probe.fit import Hyperplane, separate

POSITIONS: Final = 7
"""Positions read of each trial: the prompt's last token and a window of the answer, as the demo samples."""
_PROMPT_TOKENS: Final = 200
"""Longest prompt that is tried, since each chat is computed some dozen times."""
_ANSWER_TOKENS: Final = 48
"""Length of the answers, as in the demo's traffic."""
RANDOM: Final = "random"
BENIGN: Final = "benign"


class Chat(NamedTuple):
    """A held-out chat and the positions that are read in it."""

    tokens: list[int]
    positions: list[int]
    prompt_tokens: int


class Sizes(NamedTuple):
    """How many of each."""

    benign: int
    trials: int
    """Chats steered along each direction."""
    random: int
    """Random directions."""
    doses: tuple[float, ...]
    """Length of what is added, as a share of the mean length of the state it is added to."""


class Trials(NamedTuple):
    """All vectors of one run, and what the concepts' sentences gave to fit probes on."""

    by_condition: dict[str, Incidents]
    """`benign`, `CONCEPT@DOSE` and `random@DOSE`."""
    words: dict[str, Vectors]
    """Read-block vectors of each concept's sentences, (tokens, d_model)."""
    neutral: Vectors


def choose_chats(
    chats: Sequence[Mapping[str, Any]], documents: NDArray[np.int64], *, count: int, seed: int = 0
) -> list[Chat]:
    """Return up to ``count`` random chats among ``documents``, with a random window of the answer each."""
    rng = np.random.default_rng(seed)
    chosen: list[Chat] = []
    for document in rng.permutation(documents).tolist():
        tokens, prompt = list(chats[document]["tokens"]), int(chats[document]["prompt_tokens"])
        starts = min(len(tokens) - prompt, _ANSWER_TOKENS) - POSITIONS + 1
        if starts > 0 and prompt <= _PROMPT_TOKENS and len(chosen) < count:
            first = prompt + int(rng.integers(starts))
            places = [prompt - 1, *range(first, first + POSITIONS - 1)]
            chosen.append(Chat(tokens[: places[-1] + 1], places, prompt))
    return chosen


def plant(steerer: Steerer, planted: Planted, chats: Sequence[Chat], sizes: Sizes) -> Trials:
    """Return the vectors of every condition; the benign chats come before those that are steered."""
    neutral = read_words(steerer, planted.neutral)
    about = {name: read_words(steerer, sentences) for name, sentences in planted.concepts.items()}
    benign, steered = chats[: sizes.benign], chats[sizes.benign :][: sizes.trials]
    found = run(steerer, benign, None)
    length = float(np.mean([np.linalg.norm(one.steered, axis=1).mean() for one in found]))
    conditions = {BENIGN: _incidents(benign, [one.read for one in found])}
    directions = {
        name: difference_of_means([one.steered for one in group], [one.steered for one in neutral])
        for name, group in about.items()
    }
    d_model = conditions[BENIGN].vectors.shape[-1]
    lone = random_directions(sizes.random, d_model)
    for dose in sizes.doses:
        for name, direction in directions.items():
            added = np.repeat(direction[None] * length * dose, len(steered), axis=0)
            states = [one.read for one in run(steerer, steered, added)]
            conditions[f"{name}@{dose}"] = _incidents(steered, states)
        # Each steered chat gets its own random direction, in turn.
        each = lone[np.arange(len(steered) * 2) % len(lone)] * length * dose
        states = [one.read for one in run(steerer, [*steered, *steered], each)]
        conditions[f"{RANDOM}@{dose}"] = _incidents([*steered, *steered], states)
    return Trials(
        conditions,
        {name: np.concatenate([one.read for one in group]) for name, group in about.items()},
        np.concatenate([one.read for one in neutral]),
    )


def run(steerer: Steerer, chats: Sequence[Chat], added: Vectors | None) -> list[Depths]:
    """Return both blocks' outputs at the chats' positions, steered by ``added`` (chats, d_model)."""
    return steerer.read([chat.tokens for chat in chats], [chat.positions for chat in chats], added)


def _incidents(chats: Sequence[Chat], states: Sequence[Vectors]) -> Incidents:
    return Incidents(
        np.stack(states),
        np.array([[chat.tokens[place] for place in chat.positions] for chat in chats], np.int64),
        np.array([[place >= chat.prompt_tokens for place in chat.positions] for chat in chats], np.uint8),
        np.array([chat.positions for chat in chats], np.int64),
    )


def fit_probes(trials: Trials, negatives: Vectors) -> dict[str, Hyperplane]:
    """Return a linear probe for each concept: weights on unit vectors (d_model,) and an intercept.

    As `subtext concept fit` does: logistic regression of the concept's words against other concepts'
    words, neutral ones and ``negatives`` (n, d_model): benign vectors of chats that are tried nowhere else.
    No steered vector is seen.
    """
    probes = {}
    for name, words in trials.words.items():
        others = [rows for other, rows in trials.words.items() if other != name]
        negative = np.concatenate([*others, trials.neutral, negatives])
        probes[name] = separate(
            np.concatenate([words, negative]), np.repeat([True, False], [len(words), len(negative)])
        )
    return probes


def read_conditions(
    decoder: Decoder, trials: Trials, folder: Path, log: Callable[[str], None]
) -> dict[str, list[list[Read]]]:
    """Return the readings of every condition."""
    return {
        name: read_all(decoder, incidents, folder, name, log)
        for name, incidents in trials.by_condition.items()
    }
