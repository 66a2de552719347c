import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.record import NO_SCORES, decode, encode_scores
from subtext_sidecar.local.block import Block, decode_block, encode_block
from subtext_sidecar.shipper.rows import KeptRow, estimate, make_record, measure, not_finite
from tests.support.records import block_frames, block_header, old_block_header


def keep(row: int, **scores: float) -> KeptRow:
    (encoded,) = encode_scores(list(scores), np.array([list(scores.values())])) if scores else [NO_SCORES]
    return KeptRow(row, 0.25, 0.25, "decode", encoded)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_norms_and_records_are_right_in_every_type(dtype: str) -> None:
    values = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)
    if dtype == "bfloat16":
        content = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        content = values.astype("<f2" if dtype == "float16" else "<f4").tobytes()
    rows = measure(Block(block_header(content, 6, dtype=dtype, d_model=16), content))

    for row in range(6):
        record = decode(*make_record(rows, keep(row, anomaly=0.5)))
        assert record.header.norm == pytest.approx(float(np.linalg.norm(record.values())), rel=1e-5)
        assert record.values() == pytest.approx(values[row], rel=1e-2)
        assert record.header.scores == {"anomaly": 0.5}


def test_rows_that_are_not_finite_are_told_and_huge_ones_are_not_among_them() -> None:
    values = np.ones((4, 16), "<f4")
    values[0, 3], values[1, 5], values[2] = np.nan, -np.inf, 1e30
    content = values.tobytes()

    assert not_finite(measure(Block(block_header(content, 4), content))) == [0, 1]


def test_the_rows_of_several_blocks_keep_what_is_their_own() -> None:
    blocks = [
        decode_block(
            *block_frames(rows=number, seed=number, captured_at=1e9 + number, position=[number] * number)
        )
        for number in (1, 3, 2)
    ]

    rows = measure(*blocks)

    assert rows.captured_at == [1e9 + 1] + [1e9 + 3] * 3 + [1e9 + 2] * 2
    assert [facts.position for facts in rows.facts] == [1, 3, 3, 3, 2, 2]
    assert [request.stratum for request in rows.requests] == [
        "uniform",
        "uniform",
        "uniform",
        "opt_in",
        "uniform",
        "uniform",
    ]
    expected = [block.row_bytes(row) for block in blocks for row in range(len(block))]
    assert [make_record(rows, keep(row))[1] for row in range(6)] == expected


def test_records_name_the_tenant_of_their_block() -> None:
    rows = measure(decode_block(*block_frames(rows=2, tenant="acme")))

    assert [decode(*make_record(rows, keep(row))).header.tenant for row in range(2)] == ["acme", "acme"]


@given(st.binary(max_size=300))
def test_garbage_counts_as_one_row_of_unknown_stratum(content: bytes) -> None:
    assert sum(estimate(content).strata.values()) >= 1


@given(st.integers(0, 2000))
def test_a_truncated_header_still_counts_as_a_row(size: int) -> None:
    header, _ = block_frames(rows=4)

    assert estimate(header[: min(size, len(header) - 1)]).strata == {Stratum.UNKNOWN: 1}


@pytest.mark.parametrize("is_old", [False, True])
def test_a_refused_block_of_either_version_still_tells_its_strata(is_old: bool) -> None:  # noqa: FBT001  # parametrized
    vectors = bytes(4 * 4)
    header = old_block_header(vectors, 4) if is_old else encode_block(block_header(vectors, 4))

    assert estimate(header).strata == {"uniform": 2, "opt_in": 2}


def test_a_refused_block_still_tells_whose_it_is_unless_no_tenant_has_that_name() -> None:
    header = block_header(bytes(4 * 4), 4, tenant="acme")
    before = msgspec.msgpack.decode(encode_block(header))
    del before["tenant"]

    assert estimate(encode_block(header)).tenant == "acme"
    assert estimate(msgspec.msgpack.encode(before)).tenant == "default"
    assert estimate(encode_block(msgspec.structs.replace(header, tenant="No Name"))).tenant is None
    assert estimate(b"").tenant is None
