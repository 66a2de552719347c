"""Records, blocks and states of a plugin, valid unless told otherwise."""

from typing import Any

import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.record import VERSION, Header, checksum, encode_header
from subtext_sidecar.local.block import BlockHeader, checksums, encode_block
from subtext_sidecar.local.wire import OVERHEAD_BUCKETS_SECONDS, CaptureStatus, OverheadCounts


def vector_bytes(d_model: int = 16, seed: int = 0) -> bytes:
    values: npt.NDArray[np.float32] = np.random.default_rng(seed).standard_normal(d_model).astype("<f4")
    return values.tobytes()


def header_for(vector: bytes, **changes: Any) -> Header:
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
    return Header(**{**fields, **changes})


def frames(d_model: int = 16, seed: int = 0, **changes: Any) -> tuple[bytes, bytes]:
    vector = vector_bytes(d_model, seed)
    return encode_header(header_for(vector, **changes)), vector


def block_header(vectors: bytes, rows: int, **changes: Any) -> BlockHeader:
    """One request in two rows each, the first uniform and the second opted in, and so on."""
    requests = (rows + 1) // 2
    fields: dict[str, Any] = {
        "v": VERSION,
        "model": "smollm2",
        "layer": 20,
        "dtype": "float32",
        "d_model": len(vectors) // 4 // rows,
        "captured_at": 1_800_000_000.0,
        "checksum": checksums(vectors, rows),
        "request_ids": [f"request-{number}" for number in range(requests)],
        "strata": ["opt_in" if number % 2 else "uniform" for number in range(requests)],
        "request": [row // 2 for row in range(rows)],
        "position": [20 + row for row in range(rows)],
        "token_id": [100 + row for row in range(rows)],
        "is_prefill": [row % 2 == 0 for row in range(rows)],
        "probability": [0.25] * rows,
        "reason": ["decode"] * rows,
    }
    return BlockHeader(**{**fields, **changes})


def block_frames(rows: int = 4, d_model: int = 16, seed: int = 0, **changes: Any) -> tuple[bytes, bytes]:
    vectors = vector_bytes(rows * d_model, seed)
    return encode_block(block_header(vectors, rows, **changes)), vectors


def status(source: str = "p1", reason: str = "ok", **changes: Any) -> CaptureStatus:
    """What a plugin says of itself."""
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
