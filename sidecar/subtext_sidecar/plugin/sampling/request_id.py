"""The two ids of an engine request: what its client called it, and the identity that we give it."""

from secrets import token_hex
from typing import Final

from subtext_sidecar.contract.request_id import forms

CAPTURE_ID_BYTES: Final = 16
_SUFFIX_CHARACTERS: Final = 9
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


def new_capture_id(_internal_id: str) -> str:
    """Return an identity that nobody can foresee: nothing that a client chooses is part of it."""
    return token_hex(CAPTURE_ID_BYTES)


def client_ids(internal_id: str, *, randomized: bool = True) -> tuple[str, ...]:
    """Return the ids that the client may have sent, bounded and readable, the likeliest first.

    ``randomized`` tells whether vLLM added its hyphen and eight digits to the id that it was given.
    """
    return forms(_external(internal_id) if randomized else internal_id)


def _external(internal_id: str) -> str:
    suffix = internal_id[-_SUFFIX_CHARACTERS:]
    if len(suffix) == _SUFFIX_CHARACTERS and suffix[0] == "-" and _HEXADECIMAL.issuperset(suffix[1:]):
        return internal_id[:-_SUFFIX_CHARACTERS]
    return internal_id
