"""Find the indirect-object pairs that the audited model solves, read them, and test what is named."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trust.pairs import figures, prompts
from bench.trust.pairs.prompts import Item, Pair
from bench.trust.rates import Rate, rate
from bench.trust.reading import Incidents, read_all
from bench.trust.steering import Steerer
from workers.nla.decoder import Decoder

_TRIED: Final = 2
"""Pairs that are made for each that is asked for, since the model does not solve all."""
_ORIGINAL, _SWAPPED = "pair-original", "pair-swapped"


class Found(NamedTuple):
    """The tests, and how many pairs the model solves."""

    tests: list[figures.Test]
    solved: Rate


def measure(
    decoder: Decoder,
    steerer: Steerer,
    *,
    pairs: int,
    kept: Path,
    log: Callable[[str], None],
) -> tuple[Found, dict[str, Any]]:
    """Return every test and the setting; ValueError when the model solves fewer pairs than asked for."""
    known = prompts.single_tokens(prompts.NAMES, steerer.tokenizer)
    made = prompts.make(list(known), pairs * _TRIED)
    log(f"solving {len(made)} pairs")
    answers = [_answers(steerer, side, known) for side in _sides(made)]
    solved = rate(answers[0][:, 0] & answers[1][:, 0])
    chosen = figures.solved_pairs(made, *answers)[:pairs]
    if len(chosen) < pairs:
        raise ValueError(f"--pairs: the model solves {len(chosen)} of {len(made)} pairs; ask for fewer")
    found: dict[str, list[figures.Named]] = {}
    for name, items in zip((_ORIGINAL, _SWAPPED), _sides(chosen), strict=True):
        incidents = _read(steerer, items)
        texts = [of_one[0].text for of_one in read_all(decoder, incidents, kept, name, log)]
        expected = [figures.expected(text) for text in texts]
        found.setdefault(figures.EXPECTED, []).append(figures.named(expected, items))
        found.setdefault(figures.TEXT, []).append(figures.named(texts, items))
        lens = steerer.lens(incidents.vectors[:, 0])
        found.setdefault(figures.LENS, []).append(figures.above(lens, _tokens(items, known)))
        found.setdefault(figures.POSITION, []).append(figures.first_named(items))
    rows = figures.tests({method: (sides[0], sides[1]) for method, sides in found.items()})
    return Found(rows, solved), {"digest": decoder.identity.digest, "names": len(known), "pairs": pairs}


def _sides(pairs: Sequence[Pair]) -> tuple[list[Item], list[Item]]:
    return [pair.original for pair in pairs], [pair.swapped for pair in pairs]


def _tokens(items: Sequence[Item], known: dict[str, int]) -> NDArray[np.int64]:
    return np.array([[known[name] for name in item.names()] for item in items], np.int64)


def _answers(steerer: Steerer, items: Sequence[Item], known: dict[str, int]) -> figures.Named:
    """Return which name the model itself would rather say next."""
    tokens = [prompts.tokens_of(item, steerer.tokenizer) for item in items]
    return figures.above(steerer.next_logits(tokens), _tokens(items, known))


def _read(steerer: Steerer, items: Sequence[Item]) -> Incidents:
    tokens = [prompts.tokens_of(item, steerer.tokenizer) for item in items]
    last = [[len(one) - 1] for one in tokens]
    states = steerer.read(tokens, last)
    return Incidents(
        np.stack([one.read for one in states]),
        np.array([[one[-1]] for one in tokens], np.int64),
        np.ones((len(items), 1), np.uint8),
        np.array(last, np.int64),
    )
