import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.facts import RequestFacts
from subtext_sidecar.contract.record import RecordError
from subtext_sidecar.contract.request_id import MAX_FORMS
from subtext_sidecar.local.block import MAX_ROWS, decode_block, encode_block
from tests.support.records import block_frames, block_header, old_block_header, vector_bytes


def reason_of(header: bytes, vectors: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        decode_block(header, vectors)
    return caught.value.reason


def test_a_block_survives_the_round_trip() -> None:
    header, vectors = block_frames(rows=5)

    block = decode_block(header, vectors)

    assert block.header == block_header(vectors, 5)
    assert block.values().tobytes() == vectors


@given(header=st.binary(max_size=200), vectors=st.binary(max_size=200))
def test_garbage_gives_a_record_error_and_nothing_else(header: bytes, vectors: bytes) -> None:
    with pytest.raises(RecordError):
        decode_block(header, vectors)


@pytest.mark.parametrize("version", [1, 2])
def test_any_flipped_bit_gives_a_record_error_or_a_block(version: int) -> None:
    vectors = vector_bytes(2 * 4)
    header = old_block_header(vectors, 2) if version == 1 else encode_block(block_header(vectors, 2))
    for position, bit in itertools.product(range(len(header)), range(8)):
        damaged = bytearray(header)
        damaged[position] ^= 1 << bit
        try:
            block = decode_block(bytes(damaged), vectors)
        except RecordError:
            continue
        assert len(block) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": [0.5, 0.0]},
        {"probability": [0.5, 1.5]},
        {"probability": [0.5, math.nan]},
        {"position": [0, -1]},
        {"token_id": [0, -1]},
        {"phase": ["decode", "later"]},
        {"reason": ["decode", "a\x00"]},
        {"request_id": [""]},
        {"request_id": ["a\x00"]},
        {"request_names": [("a", "b\x00")]},
        {"stratum": ["opt_out"]},
        {"stratum": [""]},
        {"request": [0, 1]},
        {"request": [0, -1]},
        {"request": [0]},
        {"model": ""},
        {"model": "a\x00"},
        {"layer": -1},
        {"dtype": "float64"},
    ],
)
def test_a_field_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    assert reason_of(*block_frames(rows=2, **changes)) == "bad_field"


def test_a_block_has_rows_but_not_too_many() -> None:
    vectors = vector_bytes((MAX_ROWS + 1) * 4)
    many = block_header(vectors, MAX_ROWS + 1)
    none = msgspec.structs.replace(many, rows=[], request=[])

    assert reason_of(encode_block(many), vectors) == "oversized"
    assert reason_of(encode_block(none), b"") == "bad_field"


def test_a_full_block_of_requests_with_all_the_longest_names_is_accepted() -> None:
    vectors = vector_bytes(MAX_ROWS)
    name = "é" * 128
    request = RequestFacts(request_id=name, stratum=Stratum.UNIFORM, request_names=(name,) * MAX_FORMS)
    header = block_header(vectors, MAX_ROWS)
    full = msgspec.structs.replace(header, requests=[request] * MAX_ROWS, request=[*range(MAX_ROWS)])

    assert len(decode_block(encode_block(full), vectors)) == MAX_ROWS


def test_a_time_that_is_not_finite_is_refused() -> None:
    assert reason_of(*block_frames(captured_at=math.inf)) == "not_finite"


def test_a_block_of_another_version_is_refused_whatever_its_fields() -> None:
    newer = msgspec.msgpack.encode({"v": 3, "something": "else"})

    assert reason_of(newer, b"") == "wrong_version"
    assert reason_of(*block_frames(v=9)) == "wrong_version"


def test_a_block_in_columns_of_a_plugin_of_before_is_the_same_block() -> None:
    header, vectors = block_frames(rows=5)

    assert decode_block(old_block_header(vectors, 5), vectors) == decode_block(header, vectors)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"position": [1, 2, 3]}, "bad_field"),
        ({"strata": []}, "bad_field"),
        ({"strata": ["gold"]}, "bad_field"),
        ({"probability": [0.5, 2.0]}, "bad_field"),
        ({"position": [0, -1]}, "bad_field"),
        ({"request_ids": ["a\x00"]}, "bad_field"),
        ({"is_prefill": [0, 1]}, "bad_field"),
        ({"captured_at": math.nan}, "not_finite"),
        ({"checksum": [0, 0]}, "bad_checksum"),
    ],
)
def test_columns_are_checked_as_rows_are(changes: dict[str, Any], reason: str) -> None:
    vectors = vector_bytes(2 * 4)

    assert reason_of(old_block_header(vectors, 2, **changes), vectors) == reason


def test_a_blocks_checksum_is_of_each_row() -> None:
    header, vectors = block_frames(rows=2)
    swapped = np.frombuffer(vectors, np.uint8).reshape(2, -1)[::-1].tobytes()

    assert reason_of(header, swapped) == "bad_checksum"
