"""The demo's verdict on its own run: pure functions from what REST answered to one JSON object."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from deploy.demo.readback import Reading, Totals

EXPLANATIONS_NEEDED = 20
REQUESTS_NEEDED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Durations, all from the moment that make (or, without it, the demo) started."""

    setup: float  # until the demo's own first line: the virtual environment and packages
    first_explanation: float | None
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run has come to."""

    readings: Sequence[Reading]  # of requests of this run
    flags: Mapping[str, Collection[str]]  # concepts by request id
    totals: Totals

    @property
    def is_enough(self) -> bool:
        """Whether the run shows what it must."""
        return (
            len(self.readings) >= EXPLANATIONS_NEEDED
            and len({reading.request_id for reading in self.readings}) >= REQUESTS_NEEDED
        )

    @property
    def verified(self) -> int:
        """How many explanations beat shuffled pairs."""
        return sum(reading.is_verified for reading in self.readings)


def statement(outcome: Outcome) -> str:
    """Say in one sentence what the explanations are worth."""
    count, verified = len(outcome.readings), outcome.verified
    if count == 0:
        return "No explanation could be read back: nothing is known about these requests."
    if verified == 0:
        is_calibrated = any(reading.calibration_n for reading in outcome.readings)
        reason = (
            "No text rebuilds its activation better than the text of another would."
            if is_calibrated
            else "It has no calibration, so how often a wrong text fits as well is not known."
        )
        return (
            f"0 of {count} explanations verified: this decoder explains nothing you may rely on. {reason}"
        )
    return (
        f"{verified} of {count} explanations verified: their text rebuilds the activation better than 95% "
        "of shuffled pairs do. Verified tells that the decoder works on them, not that a claim is true."
    )


def document(outcome: Outcome, seconds: Seconds, api: str, error: str | None = None) -> dict[str, object]:
    """Return the JSON object that ends ``make demo ONCE=1``."""
    fves = [reading.fve for reading in outcome.readings]
    body: dict[str, object] = {
        "ok": error is None and outcome.is_enough,
        "requests_seen": outcome.totals.requests_seen,
        "samples": outcome.totals.samples,
        "explanations": len(outcome.readings),
        "verified": outcome.verified,
        "flags": sum(len(concepts) for concepts in outcome.flags.values()),
        "dropped": outcome.totals.dropped,
        "median_fve": round(statistics.median(fves), 4) if fves else None,
        "seconds": {
            "setup": round(seconds.setup, 1),
            "first_explanation": None
            if seconds.first_explanation is None
            else round(seconds.first_explanation, 1),
            "total": round(seconds.total, 1),
        },
        "api": api,
    }
    return body | ({"error": error} if error else {})
