"""Records as capture makes them."""

from typing import Any

import numpy as np

from subtext_sidecar.contract import record
from subtext_sidecar.contract.counters import Stratum

MODEL, LAYER, WIDTH = "audited", 3, 4


def make(request_id: str, position: int, token_id: int, **changes: Any) -> record.Record:
    """A row whose vector tells its position."""
    vector = np.full(WIDTH, position + 1, np.float32).tobytes()
    fields: dict[str, Any] = {
        "v": record.VERSION,
        "model": MODEL,
        "request_id": request_id,
        "stratum": Stratum.UNIFORM,
        "layer": LAYER,
        "position": position,
        "token_id": token_id,
        "phase": "decode",
        "norm": 1.0,
        "probability": 1.0,
        "baseline_probability": 0.5,
        "reason": "decode",
        "captured_at": 1.0,
        "dtype": "float32",
        "shape": (WIDTH,),
        "checksum": record.checksum(vector),
    }
    return record.Record(record.Header(**(fields | changes)), vector)
