"""Probes for tests: of the fake decoder's model, and hand-made directions."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.worker import D_MODEL, MODEL
from workers.judge.probes import LinearProbe, save_probe


def make_probe(**changes: Any) -> LinearProbe:
    """Return a probe that scores a vector along the second axis high, with changed fields."""
    fields: dict[str, Any] = {
        "name": "bombs",
        "model": MODEL,
        "layer": 1,
        "direction": np.eye(D_MODEL, dtype=np.float32)[1],
        "mean": np.zeros(D_MODEL, np.float32),
        "scale": 4.0,
        "threshold": 0.9,
        "card": {"positives": 3},
    }
    return LinearProbe(**(fields | changes))


def write_probe(folder: Path, name: str = "bombs.safetensors", **changes: Any) -> str:
    """Write such a probe into the folder and return its digest."""
    return save_probe(make_probe(**changes), folder / name)
