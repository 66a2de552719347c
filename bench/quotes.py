"""Accuracy of quoted words, separately for function and content words; pure."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.nla import fidelity
from workers.nla.fidelity import Interval

NEAREST: Final = 4
"""Number of words before the read token to compare."""
_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
FUNCTION_WORDS: Final = frozenset(
    """
    a about after all also although am an and any are as at be because been before being between both but by
    can cannot could did do does doing don't down during each either for from had has have having he her
    here hers him his how i i'm i've if in into is isn't it it's its itself just may me might more most must
    my myself no nor not of off on once only or other our ours out over own s shall she should so some such
    t than that that's the their theirs them then there these they this those through to too under until up
    upon us very was we were what when where whether which while who whom whose why will with within without
    would you you're your yours
    """.split()  # noqa: SIM905 - a list of words reads better as text
)


class Comparison(NamedTuple):
    """The result for one true word."""

    row: int
    distance: int
    """Distance to the read token in words, from 1."""
    is_function: bool
    is_right: bool


def words(text: str) -> list[str]:
    """Return a text's words, casefolded and without punctuation."""
    return [word.replace("\u2019", "'") for word in _WORD.findall(text.casefold())]


def compare(quoted: Sequence[str], true: Sequence[str]) -> Iterator[Comparison]:
    """Compare the words nearest to the read token; a missing word counts as wrong."""
    for row, (one, other) in enumerate(zip(quoted, true, strict=True)):
        quoted_words = words(one)[::-1]
        for place, word in enumerate(words(other)[::-1][:NEAREST]):
            is_right = place < len(quoted_words) and quoted_words[place] == word
            yield Comparison(row, place + 1, word in FUNCTION_WORDS, is_right)


def measure(
    quoted: Sequence[str], true: Sequence[str], documents: NDArray[np.int64], *, name: str, rounds: int
) -> dict[str, Interval]:
    """Return the share of right words by kind, over all distances and per distance."""
    compared = list(compare(quoted, true))
    table: dict[str, Interval] = {}
    for kind, is_function in (("function", True), ("content", False)):
        of_kind = [one for one in compared if one.is_function is is_function]
        parts = {f"{name}/{kind}": of_kind}
        parts |= {
            f"{name}/{kind} {distance}": [one for one in of_kind if one.distance == distance]
            for distance in range(1, NEAREST + 1)
        }
        for part, rows in parts.items():
            if rows:
                right = np.array([one.is_right for one in rows], np.float64)
                documents_of_part = documents[np.array([one.row for one in rows])]
                table[part] = fidelity.mean_interval(right, documents_of_part, rounds=rounds)
    return table
