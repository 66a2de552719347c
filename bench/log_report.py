"""Compare bench-log's figures with their bars; render a table and a JSON object. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench import ratios

SEQUENCED_AT_LEAST: Final = 1000.0
"""Entries a second, and how many are offered when the checkpoints' age is measured."""
AGE_AT_MOST_SECONDS: Final = 10.0
INGEST_AT_LEAST: Final = 0.7
"""Of the rate without log and row security."""
PLAIN, LOG, SECURITY, BOTH = "neither", "log", "row security", "both"
ARMS: Final = (PLAIN, LOG, SECURITY, BOTH)


class Offered(NamedTuple):
    """What was seen while entries came at a set rate."""

    rate: float
    """Entries a second that were committed."""
    seconds: float
    ages: Sequence[float]
    """Seconds since the oldest entry without a checkpoint was written, at each look."""
    sequenced: float
    """Share of the committed entries that had a place at the end."""


class Line(NamedTuple):
    """A figure with its bar, if it has one."""

    name: str
    figure: ratios.Estimate
    bar: ratios.Bar | None

    @property
    def is_passed(self) -> bool:
        """Whether the median passes; True without a bar."""
        return self.bar is None or ratios.judge(self.bar, self.figure).is_passed


def lines_of(
    sequenced: Sequence[float], offered: Offered, ingest: Mapping[str, Sequence[float]]
) -> list[Line]:
    """Return all figures; ``sequenced`` are entries, ``ingest`` readings a second, a value a round."""
    worst = max(offered.ages)
    figures = [
        Line("entries/s sequenced", ratios.estimate(sequenced), ratios.Bar("at_least", SEQUENCED_AT_LEAST)),
        Line(
            "oldest unsigned entry, s, longest",
            ratios.Estimate(worst, worst, worst),
            ratios.Bar("at_most", AGE_AT_MOST_SECONDS),
        ),
    ]
    figures += [Line(f"readings/s, {arm}", ratios.estimate(ingest[arm]), None) for arm in ARMS]
    for arm in ARMS[1:]:
        bar = ratios.Bar("at_least", INGEST_AT_LEAST) if arm == BOTH else None
        share = ratios.estimate(ratios.paired_ratios(ingest[arm], ingest[PLAIN]))
        figures.append(Line(f"ratio, {arm} to {PLAIN}", share, bar))
    return figures


def is_offered(offered: Offered) -> bool:
    """Return whether the load was what the age's bar is for; without it that bar tells nothing."""
    return offered.rate >= 0.95 * SEQUENCED_AT_LEAST


def render(lines: Sequence[Line], offered: Offered) -> str:
    """Return the table for people."""
    rows = [
        f"  {line.name:34} {line.figure.median:9.2f} [{line.figure.low:.2f}, {line.figure.high:.2f}]"
        f"{_verdict(line)}"
        for line in lines
    ]
    load = f"{offered.rate:.0f} entries/s were offered for {offered.seconds:.0f} s"
    enough = "" if is_offered(offered) else f"  FAIL  fewer than {SEQUENCED_AT_LEAST:g}/s"
    return "\n".join([f"{load}, {offered.sequenced:.1%} had a place at the end{enough}", *rows])


def document(lines: Sequence[Line], offered: Offered, rounds: int) -> dict[str, Any]:
    """Return the last line's JSON object."""
    return {
        "bench": "log",
        "rounds": rounds,
        "offered": {"rate": offered.rate, "seconds": offered.seconds, "sequenced": offered.sequenced},
        "figures": {line.name: line.figure._asdict() for line in lines},
        "bars": {line.name: line.bar._asdict() for line in lines if line.bar is not None},
        "ok": is_passed(lines, offered),
    }


def is_passed(lines: Sequence[Line], offered: Offered) -> bool:
    """Return whether every bar is passed."""
    return is_offered(offered) and all(line.is_passed for line in lines)


def _verdict(line: Line) -> str:
    if line.bar is None:
        return ""
    sign = ">=" if line.bar.kind == "at_least" else "<="
    return f"  {'pass' if line.is_passed else 'FAIL'}  bar {sign} {line.bar.value:g}"
