"""The thresholds that turn readings into verdicts: the seam where calibrated ones come in.

How many positions must agree on a concept is the concept's own; see `workers.judge.flags`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePolicy:
    """What counts. A calibration may replace every number here, with a measured false-positive rate."""

    anomaly_p_value: float = 0.01
    """An activation with a conformal p-value at or below this is counted as an anomaly."""
    semantic_thresholds: Mapping[str, float] = field(default_factory=dict)
    """Cosine by concept, in place of those that concepts.yaml was written with."""
    false_positive_rate: float | None = None
    """Of a flag, per request, measured on benign traffic; None while nobody measured it."""
