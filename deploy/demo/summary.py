"""The demo's verdict on its own run: pure functions from what REST answered to one JSON object."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.demo.readback import Reading, Totals

EXPLANATIONS_NEEDED = 20
REQUESTS_NEEDED = 5
_PROMPT_CHARS = 200


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
    prompts: Mapping[str, str] = field(default_factory=dict)  # the demo's own, by request id
    summaries: Mapping[str, str] = field(default_factory=dict)  # by request id, of those that say anything

    @property
    def is_enough(self) -> bool:
        """Whether the run shows what it must."""
        return (
            len(self.readings) >= EXPLANATIONS_NEEDED
            and len({reading.request_id for reading in self.readings}) >= REQUESTS_NEEDED
        )

    @property
    def verified(self) -> int:
        """How many explanations beat other readings before the same token."""
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
        "of other activations' texts before the same token do, and better than the token alone. Verified "
        "tells that the decoder works on them, not that a claim is true."
    )


def document(outcome: Outcome, seconds: Seconds, api: str, error: str | None = None) -> dict[str, object]:
    """Return the JSON object that ends ``make demo ONCE=1``."""
    fves = [reading.fve for reading in outcome.readings]
    beyond = [
        reading.fve_beyond_token for reading in outcome.readings if reading.fve_beyond_token is not None
    ]
    body: dict[str, object] = {
        "ok": error is None and outcome.is_enough,
        "requests_seen": outcome.totals.requests_seen,
        "samples": outcome.totals.samples,
        "explanations": len(outcome.readings),
        "verified": outcome.verified,
        "flags": sum(len(concepts) for concepts in outcome.flags.values()),
        "dropped": outcome.totals.dropped,
        "median_fve": round(statistics.median(fves), 4) if fves else None,
        "median_fve_beyond_token": round(statistics.median(beyond), 4) if beyond else None,
        "requests": _requests(outcome),
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


def best(readings: Sequence[Reading]) -> Reading:
    """Return the reading that tells most beyond its token: of the verified ones, else of all."""
    verified = [reading for reading in readings if reading.is_verified]
    return max(verified or readings, key=_worth)


def _worth(reading: Reading) -> tuple[bool, float]:
    beyond = reading.fve_beyond_token
    return (False, reading.fve) if beyond is None else (True, beyond)


def _requests(outcome: Outcome) -> list[dict[str, object]]:
    """Return one entry a request of the demo's own prompts, in the order of their capture.

    A visitor's prompt is not the demo's to print, nor is what was read from it.
    """
    by_request: dict[str, list[Reading]] = {}
    for reading in sorted(outcome.readings, key=lambda found: found.captured_at):
        if reading.request_id in outcome.prompts:
            by_request.setdefault(reading.request_id, []).append(reading)
    return [
        _request(outcome.prompts[request_id], best(readings), outcome.summaries.get(request_id))
        for request_id, readings in by_request.items()
    ]


def _request(prompt: str, chosen: Reading, summary: str | None) -> dict[str, object]:
    beyond = chosen.fve_beyond_token
    return {
        "prompt": " ".join(prompt.split())[:_PROMPT_CHARS],
        "reading": chosen.text,
        "verified": chosen.is_verified,
        "fve_beyond_token": None if beyond is None else round(beyond, 4),
        "summary": summary,
    }
