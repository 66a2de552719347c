"""Entries: canonical JSON as RFC 8785 has it, and commitments that a salt opens."""

import datetime as dt
import json
import uuid
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from service.evidence import entry, merkle

AT = dt.datetime(2026, 11, 28, 13, 5, 7, 42, dt.UTC)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_canonical_is_what_the_library_writes(value: object) -> None:
    assert entry.canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]  # its type is private


def test_an_entry_is_canonical_json() -> None:
    written = entry.entry_bytes("explanation", AT, bytes(32))

    assert written == rfc8785.dumps(json.loads(written))
    assert json.loads(written) == {
        "at": "2026-11-28T13:05:07.000042Z",
        "commitment": "00" * 32,
        "kind": "explanation",
    }
    assert entry.Leaf(0, "explanation", AT, bytes(32)).hash() == merkle.leaf_hash(written)


def test_the_same_moment_in_another_zone_is_the_same() -> None:
    assert entry.moment(AT.astimezone(dt.timezone(dt.timedelta(hours=5)))) == entry.moment(AT)


def test_a_value_is_plain_json() -> None:
    given = {
        "id": uuid.UUID(int=1),
        "at": AT,
        "digest": b"\x01\xff",
        "big": 2**60,
        "nan": float("nan"),
        "less": float("-inf"),
        "inside": ({"one": 1},),
    }

    assert entry.plain(given) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-11-28T13:05:07.000042Z",
        "digest": "01ff",
        "big": str(2**60),
        "nan": "nan",
        "less": "-inf",
        "inside": [{"one": 1}],
    }
    with pytest.raises(TypeError, match="a set has no place"):
        entry.plain({"a": {1}})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_of_jsonb_comes_to_the_same_when_it_is_read_again(value: float) -> None:
    written = Decimal(json.dumps(value))  # as jsonb holds it
    read = json.loads(f"{written:f}")

    assert entry.canonical(entry.plain(read)) == entry.canonical(entry.plain(value))


@pytest.mark.parametrize("value", [2**53, 2**60, -(2**63), 10**400, 123456789012345678901])
def test_two_large_integers_never_come_to_the_same(value: int) -> None:
    assert entry.canonical(entry.plain(value)) != entry.canonical(entry.plain(value + 1))


def test_a_commitment_takes_its_salt_and_every_value() -> None:
    salt, other = entry.new_salt(), entry.new_salt()
    committed = entry.commit(salt, {"text": "a", "fve": 0.5})

    assert len(committed) == entry.COMMITMENT_BYTES
    assert committed == entry.commit(salt, {"fve": 0.5, "text": "a"})
    assert committed != entry.commit(other, {"text": "a", "fve": 0.5})
    assert committed != entry.commit(salt, {"text": "a", "fve": 0.25})
