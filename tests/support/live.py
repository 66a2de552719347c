"""Captured rows of live chats, for tests of the benchmarks that join rows to chats."""

from typing import Any

import numpy as np

from subtext_sidecar.contract.record import Record
from tests.support.records import header_for

MODEL, LAYER, WIDTH = "audited", 3, 4


def make(request_id: str, position: int, token_id: int, **changes: Any) -> Record:
    """Return a record whose vector encodes its position."""
    vector = np.full(WIDTH, position + 1, np.float32).tobytes()
    fields: dict[str, Any] = {
        "model": MODEL,
        "request_id": request_id,
        "layer": LAYER,
        "position": position,
        "token_id": token_id,
        "probability": 1.0,
        "baseline_probability": 0.5,
        "captured_at": 1.0,
    }
    return Record(header_for(vector, **(fields | changes)), vector)
