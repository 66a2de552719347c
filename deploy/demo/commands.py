"""The command ``subtext demo``."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from deploy.demo.session import Options

_DEADLINE_SECONDS: Final = 1500.0


def demo(argv: list[str]) -> int:
    """Run the demo; return 0 on success, 1 on failure, 130 when a run with --once is interrupted."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)

    from deploy.demo.session import run

    result = run(options)
    if options.is_once:
        # Callers parse stdout, so this must stay its only line.
        sys.stdout.write(json.dumps(result.document) + "\n")
        sys.stdout.flush()
    return result.status


def _options(argv: list[str]) -> "Options":
    parser = argparse.ArgumentParser(
        prog="subtext demo",
        description="Serve a real model with vLLM on this machine, audit it, and show what it was "
        "computing for requests that arrived seconds ago. Ctrl-C stops everything.",
    )
    parser.add_argument(
        "--once", action="store_true", help="stop by itself and end with one JSON line on stdout"
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("SUBTEXT_HOME", ".subtext")),
        help="state directory (SUBTEXT_HOME, default .subtext)",
    )
    parser.add_argument("--eager", action="store_true", help="start vLLM without torch.compile")
    parser.add_argument(
        "--deadline-seconds",
        type=float,
        default=_DEADLINE_SECONDS,
        help="with --once: give up this long after the start (default %(default)s)",
    )
    arguments = parser.parse_args(argv)

    from deploy.demo.session import Options

    now = time.time()
    return Options(
        home=arguments.home,
        is_once=arguments.once,
        is_eager=arguments.eager,
        deadline_seconds=arguments.deadline_seconds,
        make_started_at=_make_started_at(now),
        started_at=now,
    )


def _make_started_at(now: float) -> float:
    """Return the time make started, from SUBTEXT_STARTED_AT (whole Unix seconds), or `now`."""
    text = os.environ.get("SUBTEXT_STARTED_AT", "")
    return min(float(text), now) if text.isdecimal() else now


def _interrupt(_signum: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
