"""Throughput and memory of the sidecar, from the socket through the screen to XADD, on one core.

``make bench-sidecar`` needs an otherwise idle machine. A ZeroMQ sender sends blocks of 8, 32 and 128 rows
as fast as the sidecar takes them. The screen has a subspace of rank 32 and 16 probes, and every row is
shipped. For comparison, a bare writer appends entries of the same size with redis-py's pipeline, on the
same core and to the same Valkey. Every round runs all arms, and ratios are taken within a round.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench.ratios import Bar, Estimate, estimate, judge, paired_ratios
from bench.sidecar_stage import PROBES, RANK, Stage, open_stage

RAW: Final = "raw"
BLOCKS: Final = {"blocks of 8": 8, "blocks of 32": 32, "blocks of 128": 128}
BARS: Final = {"rows_per_second": Bar("at_least", 8000.0), "ratio": Bar("at_least", 0.5)}
_LEAST_ROUNDS: Final = 7
_CORES: Final = 2
_MIB: Final = 1 << 20
_SETTLED_SHARE: Final = 0.2  # start of the soak that is not judged, while caches and pools fill
_FLAT_SHARE: Final = 0.02  # largest growth of the resident set, relative to its mean, that counts as flat


class Figures(NamedTuple):
    """Figures of one run."""

    rows_per_second: float
    cpu_microseconds: float  # of the sidecar per row; 0 for the bare writer


class Soak(NamedTuple):
    """Memory under saturation."""

    seconds: float
    rows: int
    first_mib: float
    last_mib: float
    largest_mib: float
    trend_mib_per_minute: float  # least squares over the judged part
    is_flat: bool


Rounds = list[dict[str, Figures]]


def main(argv: Sequence[str]) -> int:
    """Run and report; return 0 if every bar is passed, 1 if not, 2 with fewer than two cores."""
    options = _options(argv)
    if os.cpu_count() is None or len(os.sched_getaffinity(0)) < _CORES:
        sys.stderr.write("bench-sidecar needs two cores: one for the sidecar, one for all others\n")
        return 2
    soak = None
    with (
        tempfile.TemporaryDirectory(prefix="subtext-bench-") as folder,
        open_stage(Path(folder), _free_port(), _free_port()) as stage,
    ):
        rounds = [_round(stage, number, options.seconds) for number in range(options.rounds)]
        if options.soak_seconds:
            soak = _soak(stage, options.soak_seconds)
    document = report(rounds, soak)
    print(table(document))
    print(json.dumps(document))
    return 0 if document["ok"] else 1


def report(rounds: Rounds, soak: Soak | None) -> dict[str, Any]:
    """Return all results as one JSON object."""
    raw = [one[RAW].rows_per_second for one in rounds]
    arms: dict[str, Any] = {RAW: {"rows_per_second": estimate(raw)._asdict()}}
    bars: list[dict[str, Any]] = []
    for name in BLOCKS:
        speeds = [one[name].rows_per_second for one in rounds]
        figures = {"rows_per_second": estimate(speeds), "ratio": estimate(paired_ratios(speeds, raw))}
        cpu = estimate([one[name].cpu_microseconds for one in rounds])
        arms[name] = {figure: value._asdict() for figure, value in figures.items()}
        arms[name]["cpu_microseconds_per_row"] = cpu._asdict()
        bars += [_judged(name, figure, value) for figure, value in figures.items()]
    is_flat = soak is None or soak.is_flat
    return {
        "bench": "sidecar",
        "rounds": len(rounds),
        "screen": {"rank": RANK, "probes": PROBES},
        "arms": arms,
        "bars": bars,
        "soak": None if soak is None else soak._asdict(),
        "ok": is_flat and all(bar["passed"] for bar in bars),
    }


def table(document: dict[str, Any]) -> str:
    """Render a report as a text table."""
    lines = [f"{document['rounds']} rounds; median [95% interval]"]
    for name, figures in document["arms"].items():
        parts = [f"{figure} {_shown(value)}" for figure, value in figures.items()]
        lines.append(f"  {name:13}" + "; ".join(parts))
    for bar in document["bars"]:
        verdict = "pass" if bar["passed"] else "FAIL"
        openness = ", but the interval contains the bar" if bar["interval_contains_bar"] else ""
        lines.append(f"  {verdict}  {bar['arm']}: {bar['figure']} at least {bar['bar']}{openness}")
    if soak := document["soak"]:
        sizes = ", ".join(f"{soak[f'{name}_mib']:.1f} {name}" for name in ("first", "last", "largest"))
        verdict = "flat" if soak["is_flat"] else "NOT FLAT"
        lines.append(
            f"  soak: {soak['seconds']:.0f} s, {soak['rows']} rows; resident set in MiB: {sizes}; "
            f"trend {soak['trend_mib_per_minute']:+.3f} a minute: {verdict}"
        )
    return "\n".join(lines)


def judge_memory(seconds: Sequence[float], mib: Sequence[float], rows: int) -> Soak:
    """Judge resident set sizes ``mib``, sampled at ``seconds`` since the start of the soak."""
    first = int(len(mib) * _SETTLED_SHARE)
    at, sizes = np.asarray(seconds[first:]), np.asarray(mib[first:])
    trend = float(np.polyfit(at, sizes, 1)[0])
    growth = trend * float(at[-1] - at[0])
    return Soak(
        seconds=seconds[-1],
        rows=rows,
        first_mib=mib[0],
        last_mib=mib[-1],
        largest_mib=max(mib),
        trend_mib_per_minute=trend * 60,
        is_flat=growth <= _FLAT_SHARE * float(sizes.mean()),
    )


def _round(stage: Stage, number: int, seconds: float) -> dict[str, Figures]:
    arms = [RAW, *BLOCKS]
    turned = arms[number % len(arms) :] + arms[: number % len(arms)]
    figures = {name: _run(stage, name, seconds) for name in turned}
    shown = ", ".join(f"{name} {figures[name].rows_per_second:.0f}" for name in arms)
    sys.stderr.write(f"round {number + 1}: {shown} rows/s\n")
    return figures


def _run(stage: Stage, name: str, seconds: float) -> Figures:
    if name == RAW:
        return Figures(stage.write_raw(seconds), 0.0)
    with stage.sending(BLOCKS[name]):
        before = stage.snapshot()
        time.sleep(seconds)
        after = stage.snapshot()
    rows = after.shipped - before.shipped
    return Figures(rows / (after.at - before.at), (after.cpu_seconds - before.cpu_seconds) / rows * 1e6)


def _soak(stage: Stage, seconds: float) -> Soak:
    at: list[float] = []
    mib: list[float] = []
    with stage.sending(BLOCKS["blocks of 8"]):
        before = stage.snapshot()
        while (passed := time.monotonic() - before.at) < seconds:
            at.append(passed)
            mib.append(stage.sidecar.memory_info().rss / _MIB)
            time.sleep(1.0)
        after = stage.snapshot()
    return judge_memory(at, mib, after.shipped - before.shipped)


def _judged(arm: str, figure: str, value: Estimate) -> dict[str, Any]:
    bar = BARS[figure]
    verdict = judge(bar, value)
    return {
        "arm": arm,
        "figure": figure,
        "bar": bar.value,
        "median": value.median,
        "passed": verdict.is_passed,
        "interval_contains_bar": verdict.is_open,
    }


def _shown(value: dict[str, float]) -> str:
    digits = 0 if value["median"] > 1000 else 2  # noqa: PLR2004  # rows a second, or a ratio
    return f"{value['median']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-sidecar", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_LEAST_ROUNDS, help="at least 7 for a claim")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    parser.add_argument(
        "--soak-seconds", type=float, default=0.0, help="then saturate it and watch its memory; 0: not"
    )
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
