"""Text of others on a terminal: what it would obey is shown as a mark instead.

Explanations, tokens, prompts and logs hold what clients wrote. An escape sequence among it moves the
cursor, sets the title or hides a link behind words; a control of direction makes a line read otherwise.
"""

import unicodedata
from typing import Final

MARK: Final = "\N{REPLACEMENT CHARACTER}"
# Controls (ESC, C1 and DEL among them), formats (directions, what has no width), surrogates, and what ends
# a line or paragraph without being a line feed.
_OBEYED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT: Final = frozenset("\n\t")


def plain(text: str) -> str:
    """Return the text with every character that is no text replaced by `MARK`; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        MARK if unicodedata.category(character) in _OBEYED and character not in _KEPT else character
        for character in text
    )
