"""Turn rounds into ratios to vanilla, verdicts, a table and one JSON object. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.arms import BASELINE, SAME_PROCESS, Arm
from bench.ratios import (
    Bar,
    Estimate,
    Verdict,
    estimate,
    judge,
    paired_ratios,
    percentile,
    pooled_percentile_ratio,
)
from bench.results import Round, RunFigures

_PER_TOKENS: Final = 1000

FIGURES: Final[dict[str, Callable[[RunFigures], float]]] = {
    "throughput": lambda run: run.tokens / run.wall_seconds,
    "ttft_p50": lambda run: percentile(run.ttft_seconds, 50),
    "ttft_p99": lambda run: percentile(run.ttft_seconds, 99),
    "itl_p50": lambda run: percentile(run.gap_seconds, 50),
    "itl_p99": lambda run: percentile(run.gap_seconds, 99),
    "engine_cpu": lambda run: run.engine_cpu_seconds / run.tokens * _PER_TOKENS,
    "server_cpu": lambda run: run.server_cpu_seconds / run.tokens * _PER_TOKENS,
}
# Beside the median of the rounds' own p99, which is what the bars judge: p99 of all rounds' samples.
POOLED: Final = "itl_p99_pooled"
_SHOWN: Final = ("throughput", "ttft_p50", "ttft_p99", "itl_p50", "itl_p99", POOLED, "engine_cpu")
_UNITS: Final = {
    "throughput": ("tokens/s", 1.0),
    "ttft_p50": ("ms", 1e3),
    "ttft_p99": ("ms", 1e3),
    "itl_p50": ("ms", 1e3),
    "itl_p99": ("ms", 1e3),
    "engine_cpu": ("CPU s/1k tokens", 1.0),
}


class Cell(NamedTuple):
    """One figure of one arm at one concurrency."""

    arm: str
    concurrency: int
    figure: str


class BarResult(NamedTuple):
    """A bar and how its cell stands to it."""

    cell: Cell
    bar: Bar
    ratio: Estimate
    verdict: Verdict


def ratios(rounds: Sequence[Round], arms: Sequence[Arm], base: str = BASELINE) -> dict[Cell, Estimate]:
    """Return figures as ratios to those of ``base`` in the same round, at the same concurrency.

    To the baseline for every other arm. To another arm, only for those that share its process.
    """
    cells = {}
    for arm in _compared(arms, base):
        for concurrency in concurrencies(rounds):
            mine = _runs(rounds, arm.name, concurrency)
            others = _runs(rounds, base, concurrency)
            for name, figure in FIGURES.items():
                paired = paired_ratios([figure(run) for run in mine], [figure(run) for run in others])
                cells[Cell(arm.name, concurrency, name)] = estimate(paired)
            cells[Cell(arm.name, concurrency, POOLED)] = pooled_percentile_ratio(
                [run.gap_seconds for run in mine], [run.gap_seconds for run in others], 99
            )
    return cells


def _compared(arms: Sequence[Arm], base: str) -> list[Arm]:
    server = next((arm.server for arm in arms if arm.name == base), None)
    if server is None:
        return []
    return [arm for arm in arms if arm.name != base and (base == BASELINE or arm.server == server)]


def judge_all(cells: Mapping[Cell, Estimate], arms: Sequence[Arm]) -> list[BarResult]:
    """Hold every arm with bars to them, at every concurrency."""
    judged = []
    bars = {(arm.name, "throughput"): arm.throughput for arm in arms}
    bars |= {(arm.name, "itl_p99"): arm.itl_p99 for arm in arms}
    for cell, ratio in cells.items():
        bar = bars.get((cell.arm, cell.figure))
        if bar is not None:
            judged.append(BarResult(cell, bar, ratio, judge(bar, ratio)))
    return judged


def baseline(rounds: Sequence[Round], concurrency: int) -> dict[str, Estimate]:
    """Return vanilla's own figures: medians over rounds, in seconds, tokens a second, CPU seconds."""
    runs = _runs(rounds, BASELINE, concurrency)
    return {name: estimate([figure(run) for run in runs]) for name, figure in FIGURES.items()}


def concurrencies(rounds: Sequence[Round]) -> list[int]:
    """Return the concurrencies that were run."""
    return sorted({run.concurrency for one in rounds for run in one.runs})


def capture_figures(rounds: Sequence[Round], arm: str, concurrency: int) -> dict[str, Any] | None:
    """Return what the plugin and its sidecar said, summed over rounds; None for an arm without them."""
    runs = _runs(rounds, arm, concurrency)
    found = [run.capture for run in runs if run.capture is not None]
    if not found:
        return None
    dropped: dict[str, int] = {}
    for one in found:
        for reason, rows in one.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + rows
    tokens = sum(run.tokens for run in runs)
    return {
        "overhead_us": {
            sampled: _median_microseconds([one.overhead_seconds.get(sampled) for one in found])
            for sampled in ("none", "some")
        },
        "requests_seen": sum(one.requests_seen for one in found),
        "requests_sampled": sum(one.requests_sampled for one in found),
        "rows_sampled": sum(one.rows_sampled for one in found),
        "rows_handed_over": sum(one.rows_handed_over for one in found),
        "dropped": dropped,
        "sidecar_cpu_s_per_1k_tokens": sum(one.sidecar_cpu_seconds for one in found) / tokens * _PER_TOKENS,
    }


def document(
    rounds: Sequence[Round], arms: Sequence[Arm], cells: Mapping[Cell, Estimate]
) -> dict[str, Any]:
    """Return everything as one JSON object; ``cells`` are the rounds' ``ratios``.

    ``ok``: every bar of the arms that ran is passed.
    """
    judged = judge_all(cells, arms)
    within = ratios(rounds, arms, SAME_PROCESS)
    return {
        "bench": "capture",
        "rounds": len(rounds),
        "arms": [arm.name for arm in arms],
        "vanilla": {
            str(concurrency): {name: value.median for name, value in baseline(rounds, concurrency).items()}
            for concurrency in concurrencies(rounds)
        },
        "ratios": _by_arm(rounds, _compared(arms, BASELINE), cells),
        f"ratios_to_{SAME_PROCESS}": _by_arm(rounds, _compared(arms, SAME_PROCESS), within),
        "capture": {
            arm.name: {
                str(concurrency): capture_figures(rounds, arm.name, concurrency)
                for concurrency in concurrencies(rounds)
            }
            for arm in arms
            if arm.policy is not None
        },
        "bars": [
            {
                **one.cell._asdict(),
                "kind": one.bar.kind,
                "bar": one.bar.value,
                "median": one.ratio.median,
                "passed": one.verdict.is_passed,
                "interval_contains_bar": one.verdict.is_open,
            }
            for one in judged
        ],
        "ok": all(one.verdict.is_passed for one in judged),
    }


def _by_arm(
    rounds: Sequence[Round], arms: Sequence[Arm], cells: Mapping[Cell, Estimate]
) -> dict[str, dict[str, Any]]:
    return {
        arm.name: {
            str(concurrency): {
                name: cells[Cell(arm.name, concurrency, name)]._asdict() for name in (*FIGURES, POOLED)
            }
            for concurrency in concurrencies(rounds)
        }
        for arm in arms
    }


def table(rounds: Sequence[Round], arms: Sequence[Arm], cells: Mapping[Cell, Estimate]) -> str:
    """Return the same for people."""
    lines = [f"{len(rounds)} rounds; ratios to vanilla of the same round: median [95% interval]"]
    within = ratios(rounds, arms, SAME_PROCESS)
    for concurrency in concurrencies(rounds):
        lines += ["", *_ratio_lines(rounds, arms, cells, concurrency)]
        if within:
            lines += [f"  ratios to {SAME_PROCESS}, which is the same process:"]
            lines += _arm_lines(_compared(arms, SAME_PROCESS), within, concurrency)
    lines += ["", "bars, judged by the median:"]
    lines += [_bar_line(one) for one in judge_all(cells, arms)]
    lines += ["", "what the plugin says (host time: median a step without, and with, a taken row):"]
    lines += [
        _capture_line(arm.name, concurrency, figures)
        for arm in arms
        for concurrency in concurrencies(rounds)
        if (figures := capture_figures(rounds, arm.name, concurrency)) is not None
    ]
    return "\n".join(lines)


def _ratio_lines(
    rounds: Sequence[Round], arms: Sequence[Arm], cells: Mapping[Cell, Estimate], concurrency: int
) -> list[str]:
    own = baseline(rounds, concurrency)
    absolute = ", ".join(
        f"{name} {own[name].median * scale:.4g} {unit}" for name, (unit, scale) in _UNITS.items()
    )
    lines = [f"{concurrency} concurrent; vanilla: {absolute}"]
    lines.append(f"  {'arm':12}" + "".join(f"{name:>23}" for name in _SHOWN))
    return lines + _arm_lines(_compared(arms, BASELINE), cells, concurrency)


def _arm_lines(arms: Sequence[Arm], cells: Mapping[Cell, Estimate], concurrency: int) -> list[str]:
    return [
        f"  {arm.name:12}" + "".join(f"{_ratio(value):>23}" for value in shown)
        for arm in arms
        for shown in [[cells[Cell(arm.name, concurrency, name)] for name in _SHOWN]]
    ]


def _ratio(value: Estimate) -> str:
    return f"{value.median:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _bar_line(one: BarResult) -> str:
    sign = "≥" if one.bar.kind == "at_least" else "≤"
    verdict = "pass" if one.verdict.is_passed else "FAIL"
    openness = ", but the interval contains the bar" if one.verdict.is_open else ""
    where = f"{one.cell.arm}, {one.cell.concurrency} concurrent, {one.cell.figure}"
    return f"  {verdict}  {where:42} {_ratio(one.ratio)} {sign} {one.bar.value:.2f}{openness}"


def _capture_line(arm: str, concurrency: int, figures: dict[str, Any]) -> str:
    none, some = (_shown_microseconds(figures["overhead_us"][sampled]) for sampled in ("none", "some"))
    drops = ", ".join(f"{reason} {rows}" for reason, rows in figures["dropped"].items()) or "none"
    return (
        f"  {arm}, {concurrency} concurrent: {none} and {some} us; "
        f"{figures['requests_sampled']} of {figures['requests_seen']} requests, "
        f"{figures['rows_handed_over']} of {figures['rows_sampled']} rows handed over, dropped: {drops}; "
        f"sidecar {figures['sidecar_cpu_s_per_1k_tokens']:.2f} CPU s/1k tokens"
    )


def _shown_microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _median_microseconds(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return percentile(known, 50) * 1e6 if known else None


def _runs(rounds: Sequence[Round], arm: str, concurrency: int) -> list[RunFigures]:
    return [run for one in rounds for run in one.runs if run.arm == arm and run.concurrency == concurrency]
