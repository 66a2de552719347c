import base64
import datetime as dt
import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.paging import cursor
from service.store.read.page import Position

POSITION = Position(dt.datetime(2026, 11, 23, 5, 0, 0, 123456, tzinfo=dt.UTC), uuid.UUID(int=7))


@given(
    at=st.datetimes(timezones=st.just(dt.UTC)),
    identity=st.uuids(),
    rank=st.none() | st.integers(0, 255),
    binding=st.text(),
)
def test_a_cursor_leads_back_to_its_position(
    at: dt.datetime, identity: uuid.UUID, rank: int | None, binding: str
) -> None:
    made = cursor.encode(Position(at, identity, rank), binding)

    assert cursor.decode(made, binding) == Position(at, identity, rank)
    assert len(made) <= cursor.MAX_LENGTH


@given(st.text(max_size=100))
def test_any_other_text_is_a_cursor_error(text: str) -> None:
    with pytest.raises(cursor.CursorError):
        cursor.decode(text, "listing")


@given(index=st.integers(0, 54), replacement=st.sampled_from("ABCxyz019-_=+/\n "))
def test_one_changed_character_breaks_it(index: int, replacement: str) -> None:
    made = cursor.encode(POSITION, "listing")
    changed = made[:index] + replacement + made[index + 1 :]

    if changed == made:
        return
    with pytest.raises(cursor.CursorError) as caught:
        cursor.decode(changed, "listing")
    assert caught.value.code == "broken_cursor"


def test_a_cursor_of_another_listing_is_told_apart_from_a_broken_one() -> None:
    with pytest.raises(cursor.CursorError) as caught:
        cursor.decode(cursor.encode(POSITION, "flags{}"), "explanations{}")

    assert caught.value.code == "foreign_cursor"


def test_a_forged_time_beyond_the_calendar_is_a_cursor_error() -> None:
    body = bytearray(base64.urlsafe_b64decode(cursor.encode(POSITION, "listing") + "=")[:-8])
    body[1:9] = (2**63 - 1).to_bytes(8, "big")  # behind the version
    checked = bytes(body) + hashlib.sha256(body).digest()[:8]
    forged = base64.urlsafe_b64encode(checked).decode().rstrip("=")

    with pytest.raises(cursor.CursorError, match="no valid time"):
        cursor.decode(forged, "listing")
