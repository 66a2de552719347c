"""The thresholds that turn readings into verdicts, besides those of concepts.

Those are the definitions' own, or a calibration's; see `workers.judge.calibration`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePolicy:
    """Thresholds."""

    anomaly_p_value: float = 0.01
    """An activation with a conformal p-value at or below this one is counted as an anomaly."""
