"""Builders for records, blocks and plugin states, valid by default."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.facts import RequestFacts, RowFacts
from subtext_sidecar.contract.record import VERSION, Header, checksum, encode_fields, fields_of
from subtext_sidecar.contract.streams import activations_stream
from subtext_sidecar.local import block
from subtext_sidecar.local.block import BlockHeader, checksums, encode_block
from subtext_sidecar.local.wire import OVERHEAD_BUCKETS_SECONDS, CaptureStatus, OverheadCounts

STREAM = activations_stream("smollm2", 20)
"""Where a sidecar writes what is made here."""


def vector_bytes(d_model: int = 16, seed: int = 0) -> bytes:
    values: npt.NDArray[np.float32] = np.random.default_rng(seed).standard_normal(d_model).astype("<f4")
    return values.tobytes()


def header_for(vector: bytes, **changes: Any) -> Header:
    """Return a vector's header; changes may include the request's fields."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "model": "smollm2",
        "request_id": "request-1",
        "stratum": "uniform",
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
        "shape": (len(vector) // 4,),
        "checksum": checksum(vector),
    }
    fields |= changes
    request = RequestFacts(
        **{name: fields.pop(name) for name in RequestFacts.__struct_fields__ if name in fields}
    )
    return Header(request=request, **fields)


def encode_header(header: Header) -> bytes:
    return encode_fields(fields_of(header))


def frames(d_model: int = 16, seed: int = 0, **changes: Any) -> tuple[bytes, bytes]:
    vector = vector_bytes(d_model, seed)
    return encode_header(header_for(vector, **changes)), vector


def block_header(vectors: bytes, rows: int, **changes: Any) -> BlockHeader:
    """Return a header with two rows per request; requests alternate between uniform and opt_in.

    Changes of rows' or requests' fields are columns with one entry per row or request.
    """
    requests = (rows + 1) // 2
    of_requests: dict[str, Any] = {
        "request_id": [f"request-{number}" for number in range(requests)],
        "stratum": ["opt_in" if number % 2 else "uniform" for number in range(requests)],
    }
    of_rows: dict[str, Any] = {
        "position": [20 + row for row in range(rows)],
        "token_id": [100 + row for row in range(rows)],
        "phase": ["decode" if row % 2 else "prefill" for row in range(rows)],
        "probability": [0.25] * rows,
        "reason": ["decode"] * rows,
        "checksum": checksums(vectors, rows),
    }
    for columns, facts in ((of_requests, RequestFacts), (of_rows, RowFacts)):
        columns |= {name: changes.pop(name) for name in facts.__struct_fields__ if name in changes}
    fields: dict[str, Any] = {
        "v": block.VERSION,
        "model": "smollm2",
        "layer": 20,
        "dtype": "float32",
        "d_model": len(vectors) // 4 // rows,
        "captured_at": 1_800_000_000.0,
        "requests": [RequestFacts(**one) for one in _transposed(of_requests)],
        "request": [row // 2 for row in range(rows)],
        "rows": [RowFacts(**one) for one in _transposed(of_rows)],
    }
    return BlockHeader(**{**fields, **changes})


def _transposed(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def old_block_header(vectors: bytes, rows: int, **changes: Any) -> bytes:
    """Return the same header as plugins of version 1 encoded it; changes are version 1's columns."""
    header = msgspec.to_builtins(block_header(vectors, rows))
    requests, facts = header.pop("requests"), header.pop("rows")
    old = {
        **header,
        "v": 1,
        "request_ids": [one["request_id"] for one in requests],
        "strata": [one["stratum"] for one in requests],
        "is_prefill": [one["phase"] == "prefill" for one in facts],
        **{
            name: [one[name] for one in facts]
            for name in ("position", "token_id", "probability", "reason", "checksum")
        },
    }
    return msgspec.msgpack.encode({**old, **changes})


def block_frames(rows: int = 4, d_model: int = 16, seed: int = 0, **changes: Any) -> tuple[bytes, bytes]:
    vectors = vector_bytes(rows * d_model, seed)
    return encode_block(block_header(vectors, rows, **changes)), vectors


def status(source: str = "p1", reason: str = "ok", **changes: Any) -> CaptureStatus:
    """Return a plugin's state."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "source": source,
        "model": "m",
        "layer": 20,
        "enabled": reason == "ok",
        "reason": reason,
        "detail": "",
        "policy_version": "",
        "sampling_probability": 0.5,
        "errors": {},
        "overhead": {
            "none": OverheadCounts(counts=(7,) + (0,) * len(OVERHEAD_BUCKETS_SECONDS), sum_seconds=1e-6),
            "some": OverheadCounts(counts=(0,) * len(OVERHEAD_BUCKETS_SECONDS) + (1,), sum_seconds=0.1),
        },
    }
    return CaptureStatus(**{**fields, **changes})
