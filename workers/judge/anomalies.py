"""Anomaly scores and p-values of the decoded vectors, reconciled with the sidecar's screen. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subtext_sidecar.anomaly.score import ANOMALY_SCORES, Detector, Places, Reference

# Sidecar and worker compute in float32 over batches of different sizes, so their results differ by
# rounding. Two different references differ by far more.
_SAME_SCORE = 1e-3
_SAME_P_VALUE = 2e-3


class Anomaly(NamedTuple):
    """How unlike the reference's benign traffic one vector is."""

    score: float
    """0 at the benign median, 1 at the benign 99th percentile."""
    p_value: float
    """Conformal; 1 for a massive activation."""
    calibration_n: int
    """Number of held-out vectors of the same class; the smallest p-value is 1 / (calibration_n + 1)."""
    is_disputed: bool
    """The screen's scores differ by more than rounding, so the sidecar has another reference."""


def measure(
    detector: Detector,
    vectors: NDArray[np.floating[Any]],
    places: Places,
    screened: Sequence[Mapping[str, float]],
) -> list[Anomaly]:
    """Return one anomaly per row of ``vectors`` (n, d_model), read at ``places``.

    ``screened`` holds the records' scores.

    The screen's numbers win where they agree, so that record and explanation show the same p-value.
    Raises ValueError when the vectors' width is not the reference's.
    """
    measured = detector.score(vectors, places)
    columns = (measured.anomaly, measured.p_values, measured.calibration_n)
    rows = zip(*(column.tolist() for column in columns), screened, strict=True)
    return [
        _agree(Anomaly(score, p_value, calibration_n, False), given)  # noqa: FBT003
        for score, p_value, calibration_n, given in rows
    ]


def _agree(own: Anomaly, screened: Mapping[str, float]) -> Anomaly:
    if not screened.keys() >= set(ANOMALY_SCORES):
        return own
    score, p_value = (screened[name] for name in ANOMALY_SCORES)
    is_same_score = abs(score - own.score) <= _SAME_SCORE * max(1.0, abs(own.score))
    if is_same_score and abs(p_value - own.p_value) <= _SAME_P_VALUE:
        return own._replace(score=score, p_value=p_value)
    return own._replace(is_disputed=True)


def check_fits(reference: Reference, *, models: Collection[str], layer: int, d_model: int) -> None:
    """Raise ValueError, naming the field, unless the reference is for this model, layer and width.

    ``models`` holds the names of the decoder's model: the checkpoint's and the served one.
    """
    names = " or ".join(sorted(set(models)))
    for field, got, needed, is_right in (
        ("model", reference.model, names, reference.model in models),
        ("layer", reference.layer, layer, reference.layer == layer),
        ("d_model", reference.d_model, d_model, reference.d_model == d_model),
    ):
        if not is_right:
            raise ValueError(
                f"anomaly reference: {field}: it is of {got!r}, the decoder reads {needed!r}; fit one with"
                " `subtext screen fit` or `subtext calibrate`"
            )
