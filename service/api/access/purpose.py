"""What a caller says that he reads text for: the header `Subtext-Purpose`, taken apart. Pure."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from service.store.access.tables import Purpose

HEADER: Final = "Subtext-Purpose"
MAX_NOTE_LENGTH: Final = 500
CODES: Final = ", ".join(Purpose)
PATTERN: Final = f"^[ \\t]*({'|'.join(Purpose)})[ \\t]*(;[ -~]{{0,{MAX_NOTE_LENGTH}}}[ \\t]*)?$"
DESCRIPTION: Final = (
    f"What text is read for: `CODE` or `CODE; note`, where the code is one of {CODES}. Without it texts "
    "and tokens are withheld, whatever the key's scopes. Code and note, of up to "
    f"{MAX_NOTE_LENGTH} characters, stay in the access log for good: write no personal data into it."
)
_UNREADABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


class StatedPurpose(NamedTuple):
    """Why text is read, as the caller said."""

    code: Purpose
    note: str | None


class PurposeError(ValueError):
    """A header that states no purpose. ``code`` is stable; the message says what would be right."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse(values: Sequence[str]) -> StatedPurpose | None:
    """Return the purpose of these values of the header, None without one; raises PurposeError.

    Values are as an HTTP server gives them, a character a byte; notes are UTF-8.
    """
    if not values:
        return None
    if len(values) > 1:
        raise PurposeError("repeated", "give it once")
    written, _, note = values[0].partition(";")
    try:
        code = Purpose(written.strip(" \t"))
    except ValueError:
        raise PurposeError("unknown_purpose", f"write CODE or CODE; note with one of {CODES}") from None
    return StatedPurpose(code, _read_note(note))


def _read_note(raw: str) -> str | None:
    try:
        note = raw.encode("latin-1").decode().strip()
    except UnicodeError:
        raise PurposeError("unreadable_note", "write the note in UTF-8") from None
    if _UNREADABLE.search(note):
        raise PurposeError("unreadable_note", "the note must not hold control characters")
    if len(note) > MAX_NOTE_LENGTH:
        raise PurposeError("note_too_long", f"the note may have {MAX_NOTE_LENGTH} characters")
    return note or None
