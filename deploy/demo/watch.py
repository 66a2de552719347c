"""Send traffic, read the explanations back over REST, and show them until told to stop."""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from deploy.demo.pipeline import Pipeline
from deploy.demo.prompts import by_turns, load_prompts
from deploy.demo.readback import Readback
from deploy.demo.stack import Stack
from deploy.demo.summary import Outcome
from deploy.demo.table import Screen
from deploy.demo.traffic import Traffic, TrafficPlan

_POLL_SECONDS = 1.0
# A demo left on for days must not read days of explanations every second.
_WINDOW = dt.timedelta(minutes=10)
_COVERAGE_GRACE_SECONDS = 45.0
_FAILURES_TOLERATED = 5


class TrafficFailedError(RuntimeError):
    """No request was answered."""


@dataclass(slots=True, kw_only=True)
class Watched:
    """What was seen so far; filled while watching, so that it is there however watching ends."""

    outcome: Outcome
    first_explanation_at: float | None = None  # Unix time


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPlan:
    """When to stop."""

    is_once: bool
    deadline_at: float  # Unix time; for is_once


def watch(
    pipeline: Pipeline,
    stack: Stack,
    screen_of: Callable[[Callable[[str], str | None]], Screen],
    watched: Watched,
    plan: WatchPlan,
) -> None:
    """Run traffic and screen; returns when ``plan`` says so, else runs until interrupted."""
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
            screen.show(watched.outcome.readings, watched.outcome.flags, _status(watched.outcome, traffic))
            if plan.is_once:
                now = time.time()
                enough_at = enough_at or (now if watched.outcome.is_enough else None)
                if now > plan.deadline_at or _is_counted(watched.outcome, traffic, enough_at, now):
                    return
            time.sleep(_POLL_SECONDS)
    finally:
        screen.stop()
        traffic.stop()


def _look(pipeline: Pipeline, watched: Watched, *, is_whole_run: bool) -> None:
    """Read the current state back; what times out is read again at the next look."""
    since = pipeline.started_at
    if not is_whole_run:
        since = max(since, dt.datetime.now(dt.UTC) - _WINDOW)
    try:
        watched.outcome = _read(pipeline.readback, pipeline, since)
    except httpx.TimeoutException:
        return
    if watched.outcome.readings and watched.first_explanation_at is None:
        watched.first_explanation_at = time.time()


def _read(readback: Readback, pipeline: Pipeline, since: dt.datetime) -> Outcome:
    return Outcome(
        readings=readback.readings(since),
        flags=readback.flags(since),
        totals=readback.totals(pipeline.started_at).since(pipeline.totals_before),
    )


def _is_counted(outcome: Outcome, traffic: Traffic, enough_at: float | None, now: float) -> bool:
    """Tell whether a sufficient outcome's coverage has arrived too; counts travel once in a while."""
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
