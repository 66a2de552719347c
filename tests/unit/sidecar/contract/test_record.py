import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.contract import record
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.request_id import MAX_FORMS
from tests.support.records import encode_header, frames, header_for, vector_bytes

VECTORS = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=64)


def reason_of(header: bytes, vector: bytes) -> str:
    with pytest.raises(record.RecordError) as caught:
        record.decode(header, vector)
    return caught.value.reason


@given(values=VECTORS, request_id=st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_a_record_survives_the_round_trip(values: list[float], request_id: str) -> None:
    vector = np.array(values, dtype="<f4").tobytes()
    header = header_for(vector, request_id=request_id)

    decoded = record.decode(encode_header(header), vector)

    assert decoded.header == header
    assert decoded.values().tolist() == np.array(values, dtype="<f4").tolist()


def test_a_header_is_one_flat_map_whose_fields_have_kept_their_names() -> None:
    header, vector = frames(scores={"anomaly": 1.5})

    assert msgspec.msgpack.decode(header) == {
        "v": 1,
        "model": "smollm2",
        "request_id": "request-1",
        "stratum": "uniform",
        "trace_id": None,
        "span_id": None,
        "capture_id": None,
        "request_names": [],
        "role": None,
        "canary": None,
        "configuration": None,
        "subject": None,
        "layer": 20,
        "position": 12,
        "token_id": 42,
        "phase": "decode",
        "norm": 1.0,
        "probability": 0.25,
        "baseline_probability": 0.25,
        "reason": "decode",
        "captured_at": 1_800_000_000.0,
        "dtype": "float32",
        "shape": [16],
        "checksum": record.checksum(vector),
        "tenant": "default",
        "scores": {"anomaly": 1.5},
    }


def test_a_record_of_before_traces_were_known_is_still_read() -> None:
    header, vector = frames()
    fields = msgspec.msgpack.decode(header)
    del fields["trace_id"], fields["span_id"]

    decoded = record.decode(msgspec.msgpack.encode(fields), vector)

    assert decoded == record.decode(header, vector)
    assert (decoded.header.request.trace_id, decoded.header.request.span_id) == (None, None)


@given(values=VECTORS)
def test_bfloat16_values_are_read_exactly(values: list[float]) -> None:
    tensor = torch.tensor(values).to(torch.bfloat16)
    vector = tensor.view(torch.int16).numpy().tobytes()
    header = header_for(vector, dtype="bfloat16", shape=(len(values),))

    decoded = record.decode(encode_header(header), vector)

    assert decoded.values().tolist() == tensor.float().tolist()


@given(cut=st.integers(0, 400), in_header=st.booleans())
def test_a_truncated_record_is_refused(cut: int, in_header: bool) -> None:  # noqa: FBT001  # drawn by hypothesis
    header, vector = frames()
    cut %= len(header) if in_header else len(vector)

    reason = reason_of(header[:cut], vector) if in_header else reason_of(header, vector[:cut])

    assert reason in {"malformed_header", "bad_field", "bad_length"}


@given(header=st.binary(max_size=200), vector=st.binary(max_size=200))
def test_garbage_gives_a_record_error_and_nothing_else(header: bytes, vector: bytes) -> None:
    with pytest.raises(record.RecordError):
        record.decode(header, vector)


def test_any_flipped_bit_gives_a_record_error_or_a_record() -> None:
    header, vector = frames()
    whole = header + vector
    for position, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        try:
            decoded = record.decode(bytes(damaged[: len(header)]), bytes(damaged[len(header) :]))
        except record.RecordError:
            continue
        assert np.isfinite(decoded.values()).all()


def test_text_that_is_not_utf8_is_refused() -> None:
    header, vector = frames(model="smollm2")

    assert reason_of(header.replace(b"smollm2", b"\xf3mollm2"), vector) == "malformed_header"


@pytest.mark.parametrize("field", [b"\xa1x", b"\xa5model"])
def test_nesting_without_end_is_refused(field: bytes) -> None:
    deep = b"\x82\xa1v\x01" + field + b"\x91" * 4000

    assert reason_of(deep, b"") == "malformed_header"
    with pytest.raises(record.RecordError):
        record.decode_coverage(deep)


def test_coverage_that_is_not_utf8_is_refused() -> None:
    payload = record.encode_coverage(
        record.CoverageCount(
            v=1, source="plugin-1", hop=Hop.PLUGIN, model="smollm2", stratum="uniform", minute=1, counts={}
        )
    )

    with pytest.raises(record.RecordError):
        record.decode_coverage(payload.replace(b"smollm2", b"\xf3mollm2"))


@given(payload=st.binary(max_size=200))
def test_garbage_coverage_gives_a_record_error_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(record.RecordError):
        record.decode_coverage(payload)


@given(
    st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=40, unique=True),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
)
def test_scores_encoded_together_are_each_rows_scores(names: list[str], rows: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, len(names)))

    encoded = record.encode_scores(names, values)

    assert [msgspec.msgpack.decode(one) for one in encoded] == [
        dict(zip(names, row, strict=True)) for row in values.tolist()
    ]


def test_another_version_is_refused_before_its_fields_are_judged() -> None:
    newer = msgspec.msgpack.encode({"v": 2, "something": "else"})

    assert reason_of(newer, b"") == "wrong_version"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_vector_that_is_not_finite_is_refused(value: float) -> None:
    vector = np.array([1.0, value], dtype="<f4").tobytes()

    assert reason_of(encode_header(header_for(vector)), vector) == "not_finite"


def test_oversized_headers_and_vectors_are_refused() -> None:
    vector = vector_bytes()
    huge = encode_header(header_for(vector, shape=(record.MAX_DIMENSIONS + 1,)))
    long = encode_header(header_for(vector, request_id="x" * record.MAX_HEADER_BYTES))

    assert reason_of(huge, vector) == "oversized"
    assert reason_of(long, vector) == "oversized"


def test_a_request_with_all_the_longest_names_and_every_score_fits_a_header() -> None:
    names = tuple("é" * 128 for _ in range(MAX_FORMS))
    scores = {f"probe_{number:0>50}": 1.0 for number in range(record.MAX_SCORES)}

    header, vector = frames(request_id=names[0], request_names=names, scores=scores)

    assert record.decode(header, vector).header.request.request_names == names


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": 0.0},
        {"probability": 1.5},
        {"probability": math.nan},
        {"baseline_probability": 0.5},
        {"baseline_probability": -0.1},
        {"baseline_probability": math.nan},
        {"stratum": ""},
        {"trace_id": "0" * 31},
        {"trace_id": "A" * 32},
        {"trace_id": "0" * 32 + "\n"},
        {"span_id": ""},
        {"span_id": "g" * 16},
        {"scores": {"a\x00": 1.0}},
        {"layer": -1},
        {"position": -1},
        {"model": ""},
        {"request_id": "a\x00b"},
        {"request_names": ("a", "b\x00")},
        {"request_names": ("",)},
        {"request_names": ("x" * 257,)},
        {"request_names": ("x",) * 9},
        {"dtype": "float64"},
        {"shape": (4, 4)},
        {"shape": (0,)},
    ],
)
def test_a_field_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    header, vector = frames(**changes)

    assert reason_of(header, vector) == "bad_field"


def test_a_changed_vector_does_not_pass_its_checksum() -> None:
    header, vector = frames()

    assert reason_of(header, vector[::-1]) == "bad_checksum"


def test_a_recomputed_activation_keeps_its_identity() -> None:
    vector = vector_bytes()
    first = header_for(vector, captured_at=1.0, probability=0.5)
    again = header_for(vector, captured_at=2.0, probability=1.0)
    other = header_for(vector, position=13)

    assert record.sample_id(first) == record.sample_id(again)
    assert record.sample_id(first) != record.sample_id(other)
