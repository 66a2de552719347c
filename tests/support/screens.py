"""Synthetic benign activations, and a reference fitted on them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.anomaly.score import Places, Reference


def benign(rows: int = 4000, d_model: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return activations (rows, d_model) with a common mean, three strong directions and varied norms."""
    rng = np.random.default_rng(seed)
    shape = np.random.default_rng(99)  # the same for every seed
    mean, directions = shape.standard_normal(d_model), shape.standard_normal((3, d_model))
    values = mean + rng.standard_normal((rows, 3)) @ directions * 0.3
    values += rng.standard_normal((rows, d_model)) * 0.1
    return (values * rng.uniform(50, 100, (rows, 1))).astype(np.float32)


def answers(rows: int) -> Places:
    """Return places of rows that the model wrote."""
    return Places(np.arange(rows) + 100, np.full(rows, 5), np.zeros(rows, np.bool_))


def reference(d_model: int = 16, **changes: Any) -> Reference:
    """Return a reference fitted on benign rows, eight per request."""
    vectors = benign(d_model=d_model)
    return anomaly_fit.fit(
        vectors,
        np.arange(len(vectors)) // 8,
        **{"model": "smollm2", "layer": 20, "components": 3, **changes},
    ).reference
