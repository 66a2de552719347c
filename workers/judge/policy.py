"""The thresholds that turn readings into verdicts; a calibration may replace them.

How many positions must match is a property of each concept; see `workers.judge.flags`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePolicy:
    """Thresholds."""

    anomaly_p_value: float = 0.01
    """An activation with a conformal p-value at or below this one is counted as an anomaly."""
    semantic_thresholds: Mapping[str, float] = field(default_factory=dict)
    """Cosine by concept name; overrides concepts.yaml."""
