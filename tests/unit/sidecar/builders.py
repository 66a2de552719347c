"""Records for tests, valid unless told otherwise."""

from typing import Any

import numpy as np
import numpy.typing as npt

from subtext_sidecar.record import VERSION, Header, checksum, encode_header


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
