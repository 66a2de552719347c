"""One run of the demo: start, watch, stop, report."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console

from deploy.demo import evidence
from deploy.demo import pipeline as pipelines
from deploy.demo.readback import ReadbackError, Totals
from deploy.demo.summary import Outcome, Seconds, document, statement
from deploy.demo.table import Screen
from deploy.demo.watch import Sightings, TrafficFailedError, WatchPlan, watch
from deploy.local.home import HomeInUseError, open_home
from deploy.local.ports import HOST, Ports, choose_ports
from deploy.local.process import ProcessDiedError
from deploy.local.progress import Reporter
from deploy.local.stack import Stack, StartTimeoutError
from deploy.local.terminal import plain
from deploy.local.tether import die_with_parent

_PLAIN_WIDTH: Final = 150
_INTERRUPTED: Final = 130
_FAILURES: Final = (
    ProcessDiedError,
    StartTimeoutError,
    HomeInUseError,
    ReadbackError,
    TrafficFailedError,
    pipelines.KeyCreationError,
    evidence.EvidenceError,
    FileNotFoundError,
    httpx.TransportError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options, and the times from which durations are measured."""

    home: Path
    is_once: bool
    is_eager: bool
    deadline_seconds: float
    make_started_at: float  # Unix time
    started_at: float  # Unix time at which this process parsed its options


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The exit status and the JSON object of ``--once``."""

    status: int
    document: dict[str, object]


def run(options: Options) -> Result:
    """Run the demo and return after every started process has ended."""
    console = Console(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    reporter = Reporter(console, options.make_started_at)
    watched = Sightings(outcome=Outcome(readings=(), flags={}, totals=Totals()))
    ports = choose_ports(Ports())
    error = None
    try:
        _run(options, ports, reporter, watched)
    except KeyboardInterrupt:
        error = "interrupted"
    except _FAILURES as failure:
        error = f"{type(failure).__name__}: {failure}"
        console.print(plain(error), style="red", markup=False, highlight=False)
    reporter.line(statement(watched.outcome))
    return _result(options, ports, watched, error)


def _run(options: Options, ports: Ports, reporter: Reporter, watched: Sightings) -> None:
    is_eager = options.is_eager or not pipelines.can_compile()
    if is_eager and not options.is_eager:
        reporter.line("no C++ compiler or Python headers here: vLLM runs without torch.compile")
    with open_home(options.home) as home, Stack(home.logs_dir, reporter) as stack:
        _die_with_make()
        threads = len(os.sched_getaffinity(0))  # for each engine, since waiting threads sleep
        running = pipelines.start(stack, home, ports, reporter, is_eager=is_eager, threads=threads)
        plan = WatchPlan(is_once=options.is_once, deadline_at=options.started_at + options.deadline_seconds)
        with running.readback:
            watch(
                running,
                stack,
                lambda prompt_of: Screen(reporter.console, header(running), prompt_of),
                watched,
                plan,
            )
        with reporter.step("verifying the evidence log"):
            watched.evidence = evidence.verify(running.plan)
        reporter.line(evidence.statement(watched.evidence))


def header(running: pipelines.Pipeline) -> str:
    """Return the addresses to show to a visitor."""
    ports = running.plan.ports
    metrics = {
        "service": ports.api,
        "plugin": ports.plugin,
        "sidecar": ports.sidecar,
        "worker": ports.worker,
        "log": ports.log,
        "vLLM": ports.openai,
    }
    addresses = ", ".join(f"{name} {port}" for name, port in metrics.items())
    return (
        f"console          {running.console_url}\n"
        f"OpenAI endpoint  {running.openai_url}   send prompts of your own; they appear below\n"
        f"REST docs        {running.api_url}/docs   API key in {running.plan.home.api_key_file}\n"
        f"access log       {running.api_url}/v1/access-log   who read which text; the auditor's key in"
        f" {running.plan.home.auditor_key_file}\n"
        f"evidence log     {evidence.instructions(running.plan)}\n"
        f"metrics          http://{HOST}:PORT/metrics   {addresses}\n"
    )


def _die_with_make() -> None:
    # Only make must take the demo down with it; a demo started by hand may outlive its shell.
    if "MAKELEVEL" in os.environ:
        die_with_parent(signal.SIGTERM)


def _result(options: Options, ports: Ports, watched: Sightings, error: str | None) -> Result:
    begin, now = options.make_started_at, time.time()
    first = watched.first_explanation_at
    seconds = Seconds(
        setup=options.started_at - begin,
        first_explanation=None if first is None else first - begin,
        total=now - begin,
    )
    if error is None and options.is_once and not watched.outcome.is_enough:
        error = f"not enough explanations within {options.deadline_seconds:.0f} s"
    body = document(watched.outcome, seconds, pipelines.api_url(ports), error, watched.evidence)
    if error == "interrupted":
        return Result(status=_INTERRUPTED if options.is_once else 0, document=body)
    is_good = body["ok"] if options.is_once else error is None
    return Result(status=0 if is_good else 1, document=body)
