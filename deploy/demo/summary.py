"""The demo's verdict on its own run, as a sentence and a JSON object. Pure."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.demo.readback import Reading, Totals

EXPLANATIONS_NEEDED = 20
REQUESTS_NEEDED = 5
_PROMPT_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Durations since the start of make, or of the demo when make did not start it."""

    setup: float  # virtual environment and packages, before the demo starts
    first_explanation: float | None
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of a run so far."""

    readings: Sequence[Reading]
    flags: Mapping[str, Collection[str]]  # concepts by request id
    totals: Totals
    prompts: Mapping[str, str] = field(default_factory=dict)  # by request id, without visitors' prompts
    summaries: Mapping[str, str] = field(default_factory=dict)  # by request id

    @property
    def is_enough(self) -> bool:
        """Whether a run with --once may end successfully."""
        return (
            len(self.readings) >= EXPLANATIONS_NEEDED
            and len({reading.request_id for reading in self.readings}) >= REQUESTS_NEEDED
        )

    @property
    def verified(self) -> int:
        """Number of verified explanations."""
        return sum(reading.is_verified for reading in self.readings)


def statement(outcome: Outcome) -> str:
    """State for a reader how many explanations are verified, and what verified means."""
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


def document(
    outcome: Outcome,
    seconds: Seconds,
    api: str,
    error: str | None = None,
    evidence: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """Return the JSON object that ``make demo ONCE=1`` prints last.

    ``evidence`` are the figures of the log's verification; None when the run did not come to it.
    """
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
        "evidence": None if evidence is None else dict(evidence),
        "api": api,
    }
    return body | ({"error": error} if error else {})


def best(readings: Sequence[Reading]) -> Reading:
    """Return the reading with the highest FVE beyond the token, preferring verified readings."""
    verified = [reading for reading in readings if reading.is_verified]
    return max(verified or readings, key=_worth)


def _worth(reading: Reading) -> tuple[bool, float]:
    beyond = reading.fve_beyond_token
    return (False, reading.fve) if beyond is None else (True, beyond)


def _requests(outcome: Outcome) -> list[dict[str, object]]:
    """Return one entry per request of the demo, in capture order.

    Visitors' requests are left out for their privacy.
    """
    by_request: dict[str, list[Reading]] = {}
    for reading in sorted(outcome.readings, key=lambda read: read.captured_at):
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
