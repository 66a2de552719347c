"""Target readings, as prompt and answer of the AV and as prompt of the AR.

    An answer about medicine. Expects " to". Reads "I'm so sorry for you. It's completely normal to"

The first sentence comes from the label head (`workers.nla.checkpoint.labels`) and is part of the AV's
prompt; the AV writes the rest. Quotes keep the text's exact token ids, so the AV learns to copy tokens, not
to spell.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla.claims import EXPECTS, READS, Continuation, explanation
from workers.training.config import Prompting

_NEXT_WEIGHT, _FRAME_WEIGHT, _END_WEIGHT = 3.0, 0.2, 0.5
_NEAREST_WEIGHT, _FARTHEST_WEIGHT, _FALL = 3.0, 0.4, 0.75
_BLANK_FACTOR = 0.4
"""Reduces the weight of white space, which is so easy to predict that the AV would learn little else."""


class AvExample(NamedTuple):
    """One prompt and its answer; the soft tokens come between `ReadingWriter.before` and `prompt`."""

    prompt: list[int]
    """Token ids after the soft tokens."""
    answer: list[int]
    weights: list[float]
    """Loss weight of every answer token."""
    tail: slice
    """Range of the quoted words within the answer."""


class ReadingWriter:
    """Writes target readings for both halves, with one tokenizer."""

    def __init__(self, tokenizer: Any, prompting: Prompting) -> None:
        """Split the templates; raises ValueError when a placeholder is missing or misplaced."""
        self._tokenizer = tokenizer
        before, _, rest = prompting.av.partition("{injection_char}")
        between, _, after = rest.partition("{token}")
        ar_before, _, ar_after = prompting.ar.partition("{token}")
        end = self.encode(prompting.end)
        if (
            not after.endswith("{labels}" + EXPECTS)
            or ar_after
            or "{explanation}" not in ar_before
            or len(end) != 1
        ):
            raise ValueError(
                f"prompting: av must end with {{labels}}{EXPECTS}, ar with {{token}} behind"
                " {explanation}, and end must be one token"
            )
        self.before = self.encode(before)
        self.between = self.encode(between)
        self._after, self._ar_before = after, ar_before
        self.end = end[0]
        self._middle = self.encode(READS)
        self._blank: dict[int, bool] = {}

    def prompt(self, token: int, sentence: str) -> list[int]:
        """Return the AV's prompt after the soft tokens."""
        return [*self.between, token, *self.encode(self._after.replace("{labels}", sentence))]

    def av_example(self, sentence: str, context: Sequence[int], next_token: int) -> AvExample:
        """Return the AV's example for a vector; `context` ends with the read token."""
        tail = [int(token) for token in context[:-1]]
        answer = [int(next_token), *self._middle, *tail, self.end]
        weights = [
            _NEXT_WEIGHT,
            *(_FRAME_WEIGHT for _ in self._middle),
            *(self._tail_weight(token, len(tail) - 1 - place) for place, token in enumerate(tail)),
            _END_WEIGHT,
        ]
        start = 1 + len(self._middle)
        return AvExample(
            self.prompt(int(context[-1]), sentence), answer, weights, slice(start, start + len(tail))
        )

    def true_text(self, sentence: str, context: Sequence[int], next_token: int) -> str:
        """Return the true reading without its read token."""
        return explanation(
            sentence, Continuation(self.decode([next_token]), self.decode(list(context[:-1])))
        )

    def ar_ids(self, text: str, token: int) -> list[int]:
        """Return the AR's prompt for a reading and its read token."""
        return [*self.encode(self._ar_before.replace("{explanation}", text)), int(token)]

    def cut(self, ids: Sequence[int]) -> list[int]:
        """Return an answer up to its end token."""
        ids = list(ids)
        return ids[: ids.index(self.end)] if self.end in ids else ids

    def tail_of(self, answer: Sequence[int]) -> list[int] | None:
        """Return the quoted words of an answer; None when the answer breaks the format."""
        start = 1 + len(self._middle)
        return list(answer[start:]) if list(answer[1:start]) == self._middle else None

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids; special tokens are recognized, but none are added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, with special tokens."""
        return str(self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False))

    def _tail_weight(self, token: int, distance: int) -> float:
        weight = _NEAREST_WEIGHT * _FALL**distance + _FARTHEST_WEIGHT
        return weight * _BLANK_FACTOR if self._is_blank(token) else weight

    def _is_blank(self, token: int) -> bool:
        # Cached per token: decoding a whole vocabulary of 262,144 takes seconds.
        if token not in self._blank:
            self._blank[token] = not self.decode([token]).strip()
        return self._blank[token]


def damage_far(
    context: NDArray[np.int64], vocabulary: NDArray[np.int64], damage: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Replace random tokens of `context` (c,), more of them farther from the read token; pure.

    The AV's readings are mostly right near the read token and invented far from it. The damage teaches the
    AR to trust them accordingly.
    """
    distance = np.arange(len(context) - 1, -1, -1)
    hit = rng.random(len(context)) < np.minimum(0.8, damage * distance / 3)
    return np.where(hit, rng.choice(vocabulary, len(context)), context)
