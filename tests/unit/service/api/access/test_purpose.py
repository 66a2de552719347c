import re

import pytest

from service.api.access.purpose import CODES, MAX_NOTE_LENGTH, PATTERN, PurposeError, StatedPurpose, parse
from service.store.access.tables import Purpose


def sent(value: str) -> str:
    """Return what a server makes of a header that a client sends as UTF-8."""
    return value.encode().decode("latin-1")


@pytest.mark.parametrize("code", Purpose)
def test_every_code_alone_and_with_a_note_is_a_purpose(code: Purpose) -> None:
    assert parse([code]) == StatedPurpose(code, None)
    assert parse([f" {code} ; "]) == StatedPurpose(code, None)
    assert parse([sent(f"{code};  Störung 17; zweite Schicht ")]) == StatedPurpose(
        code, "Störung 17; zweite Schicht"
    )
    assert re.fullmatch(PATTERN, f"{code}; ticket 17")


def test_no_header_states_no_purpose() -> None:
    assert parse([]) is None


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (["curiosity"], "unknown_purpose"),
        (["Audit"], "unknown_purpose"),
        ([""], "unknown_purpose"),
        (["; only a note"], "unknown_purpose"),
        (["audit, debugging"], "unknown_purpose"),
        (["audit", "audit"], "repeated"),
        (["audit; \xff"], "unreadable_note"),
        (["audit; a\tb"], "unreadable_note"),
        ([sent("audit; a\u2028b")], "unreadable_note"),
        (["audit; " + "x" * (MAX_NOTE_LENGTH + 1)], "note_too_long"),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(values: list[str], code: str) -> None:
    with pytest.raises(PurposeError) as refused:
        parse(values)

    assert refused.value.code == code
    if code == "unknown_purpose":
        assert CODES in str(refused.value)
