"""Send traffic, read explanations back over REST, and show them until stopped."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import httpx

from deploy.demo.pipeline import Pipeline
from deploy.demo.prompts import by_turns, load_prompts
from deploy.demo.readback import Readback
from deploy.demo.summary import Outcome
from deploy.demo.table import Screen
from deploy.demo.traffic import Traffic, TrafficPlan
from deploy.local.stack import Stack

_POLL_SECONDS = 1.0
# Bounds the cost of each poll: a demo that runs for days must not read days of explanations every second.
_WINDOW = dt.timedelta(minutes=10)
_COVERAGE_GRACE_SECONDS = 45.0
_FAILURES_TOLERATED = 5
# Nothing marks a request's last activation, so a quiet period has to.
_COMPLETE_AFTER_SECONDS = 20.0


class TrafficFailedError(RuntimeError):
    """No request was answered."""


class Arrivals:
    """Detects requests whose readings are complete: no new one has arrived for a while."""

    def __init__(self) -> None:
        """Start without any request."""
        self._last: dict[str, tuple[int, float]] = {}  # highest count of readings, and when it was reached
        self._settled: dict[str, int] = {}  # count of readings at the last ``settle``

    def complete(self, counts: Mapping[str, int], now: float, wait_seconds: float) -> list[str]:
        """Return requests that had no new reading for ``wait_seconds`` and are not settled since.

        ``counts`` covers a sliding window of time, so a falling count is not a change.
        """
        for request_id, count in counts.items():
            if count > self._last.get(request_id, (0, now))[0]:
                self._last[request_id] = (count, now)
        return [
            request_id
            for request_id in counts
            for most, since in (self._last[request_id],)
            if now - since >= wait_seconds and self._settled.get(request_id) != most
        ]

    def settle(self, request_id: str) -> None:
        """Mark the request as done until more readings arrive."""
        self._settled[request_id] = self._last[request_id][0]


@dataclass(slots=True, kw_only=True)
class Sightings:
    """Results so far, updated in place so that they survive an exception while watching."""

    outcome: Outcome
    first_explanation_at: float | None = None  # Unix time
    arrivals: Arrivals = field(default_factory=Arrivals)
    summaries: dict[str, str] = field(default_factory=dict)  # by request id
    evidence: dict[str, int] | None = None  # what verifying the log found, at the end of a run with --once


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPlan:
    """When to stop watching."""

    is_once: bool
    deadline_at: float  # Unix time; used only with ``is_once``


def watch(
    pipeline: Pipeline,
    stack: Stack,
    screen_of: Callable[[Callable[[str], str | None]], Screen],
    watched: Sightings,
    plan: WatchPlan,
) -> None:
    """Run traffic and screen until interrupted or, with ``is_once``, until enough or the deadline.

    Raises TrafficFailedError, ProcessDiedError, ReadbackError or an httpx.TransportError.
    """
    traffic = Traffic(pipeline.openai_url, by_turns(load_prompts()), TrafficPlan())
    screen = screen_of(traffic.prompt_of)
    traffic.start()
    screen.start()
    enough_at: float | None = None
    try:
        while True:
            stack.check()
            _check_traffic(traffic)
            _look(pipeline, watched, is_whole_run=plan.is_once)
            _summarize(pipeline.readback, watched, traffic, wait_seconds=_COMPLETE_AFTER_SECONDS)
            _show(screen, watched.outcome, traffic)
            if plan.is_once:
                now = time.time()
                enough_at = enough_at or (now if watched.outcome.is_enough else None)
                if now > plan.deadline_at or _is_counted(watched.outcome, traffic, enough_at, now):
                    _summarize(pipeline.readback, watched, traffic, wait_seconds=0.0)
                    _show(screen, watched.outcome, traffic)
                    return
            time.sleep(_POLL_SECONDS)
    finally:
        screen.stop()
        traffic.stop()


def _show(screen: Screen, outcome: Outcome, traffic: Traffic) -> None:
    screen.show(outcome.readings, outcome.flags, _status(outcome, traffic), outcome.summaries)


def _look(pipeline: Pipeline, watched: Sightings, *, is_whole_run: bool) -> None:
    """Read the current state back; on a timeout keep the old state until the next poll."""
    since = pipeline.started_at
    if not is_whole_run:
        since = max(since, dt.datetime.now(dt.UTC) - _WINDOW)
    try:
        watched.outcome = _read(pipeline.readback, pipeline, since)
    except httpx.TimeoutException:
        return
    if watched.outcome.readings and watched.first_explanation_at is None:
        watched.first_explanation_at = time.time()


def _summarize(readback: Readback, watched: Sightings, traffic: Traffic, *, wait_seconds: float) -> None:
    """Fetch the summary of every complete request; after a timeout the next poll tries again."""
    outcome, now = watched.outcome, time.monotonic()
    counts = Counter(reading.request_id for reading in outcome.readings)
    for request_id in watched.arrivals.complete(counts, now, wait_seconds):
        try:
            summary = readback.request_summary(request_id)
        except httpx.TimeoutException:
            break
        watched.arrivals.settle(request_id)
        if summary is not None:
            watched.summaries[request_id] = summary
    prompts = {request_id: traffic.prompt_of(request_id) for request_id in counts}
    watched.outcome = replace(
        outcome,
        prompts={request_id: prompt for request_id, prompt in prompts.items() if prompt is not None},
        summaries={
            request_id: watched.summaries[request_id]
            for request_id in counts.keys() & watched.summaries.keys()
        },
    )


def _read(readback: Readback, pipeline: Pipeline, since: dt.datetime) -> Outcome:
    return Outcome(
        readings=readback.readings(since),
        flags=readback.flags(since),
        totals=readback.totals(pipeline.started_at).since(pipeline.totals_before),
    )


def _is_counted(outcome: Outcome, traffic: Traffic, enough_at: float | None, now: float) -> bool:
    """Return whether coverage has caught up with the answered requests; counters are sent periodically."""
    if enough_at is None:
        return False
    return outcome.totals.requests_seen >= traffic.succeeded() or now > enough_at + _COVERAGE_GRACE_SECONDS


def _check_traffic(traffic: Traffic) -> None:
    failures = traffic.failures()
    if len(failures) >= _FAILURES_TOLERATED and traffic.succeeded() == 0:
        raise TrafficFailedError(f"no request was answered; the last failure: {failures[-1]}")


def _status(outcome: Outcome, traffic: Traffic) -> str:
    totals, count = outcome.totals, len(outcome.readings)
    dead = f", {totals.dead_lettered} given up by the worker" if totals.dead_lettered else ""
    failed = f" · {len(traffic.failures())} requests failed" if traffic.failures() else ""
    return (
        f"{traffic.succeeded()} requests answered, {totals.requests_seen} seen by the audit · "
        f"{totals.samples} activations sampled, {totals.dropped} dropped{dead} · "
        f"{outcome.verified} of {count} explanations verified{failed}"
    )
