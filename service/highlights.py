"""Where the words that were looked for stand in a text: ranges of characters, no markup. Pure."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MOST_RANGES: Final = 200
"""Of one text; what is behind them is not marked."""
# As PostgreSQL writes a tsquery: words in quotes, those to be left out behind an exclamation mark.
_LEFT_OUT: Final = re.compile(r"!\( (?:'(?:[^']|'')*'|[^')])* \)|!'(?:[^']|'')*'")
_WORD: Final = re.compile(r"'((?:[^']|'')*)'")


class Range(NamedTuple):
    """Characters of a text, that is Unicode code points, from ``start`` up to and without ``end``."""

    start: int
    end: int


def words_of(query: str) -> list[str]:
    """Return the words that a tsquery looks for, without those that it leaves out, each once."""
    kept = _LEFT_OUT.sub(" ", query)
    return list(
        dict.fromkeys(word.replace("''", "'").replace("\\\\", "\\") for word in _WORD.findall(kept))
    )


def ranges_of(text: str, words: Sequence[str]) -> list[Range]:
    """Return where the words stand as whole words, in order and without overlaps, whatever their case.

    PostgreSQL decides what is found; a word that it cuts out of a text in a way of its own is not marked.
    """
    if not words:
        return []
    longest_first = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
    found = (Range(*match.span()) for match in pattern.finditer(text) if match.group())
    return [one for one, _ in zip(found, range(MOST_RANGES), strict=False)]
