"""Compare bench-fidelity's figures with their bars; render a table and a JSON object. Pure."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bench.ratios import Bar, Estimate, judge
from workers.nla.fidelity import Interval
from workers.nla.positions import POSITION_CLASSES

HELD_OUT, LIVE = "held-out documents", "live chats"
_NULLS: Final = ("same_token", "random", "layer_mean")

BARS: Final[dict[str, Bar]] = {
    "true_text_fve": Bar("at_least", 0.78),
    "best_beyond_token": Bar("at_least", 0.30),
    "greedy_beyond_token": Bar("at_least", 0.15),
    "best_fve": Bar("at_least", 0.56),
    "shuffled_best_fve": Bar("at_most", 0.0),
    "shuffled_greedy_fve": Bar("at_most", 0.0),
    "empty_fve": Bar("at_most", 0.0),
    "area_right_surest_30_sets": Bar("at_least", 0.60),
    "area_right_surest_30_real": Bar("at_least", 0.45),
    "pooled_area_right_surest_40_sets": Bar("at_least", 0.70),
    "pooled_area_right_surest_40_real": Bar("at_least", 0.55),
    "pooled_area_to_labeller_sets": Bar("at_least", 0.95),
    "pooled_area_to_labeller_real": Bar("at_least", 0.95),
    "kind_auroc": Bar("at_least", 0.95),
    "kind_recall": Bar("at_least", 0.60),
    **{f"verified_{null}": Bar("at_most", 0.05) for null in _NULLS},
}
"""Bars for held-out documents; `verified_*` also applies to every position class."""
_OF_VECTORS: Final = frozenset(
    {
        "best_beyond_token",
        "greedy_beyond_token",
        "shuffled_best_fve",
        "shuffled_greedy_fve",
        "empty_fve",
        *(f"verified_{null}" for null in _NULLS),
    }
)
"""Bars that also apply to live chats."""
_VERIFIED: Final = BARS["verified_same_token"]


class BarResult(NamedTuple):
    """A bar and its measured figure; `found` is None if the figure was not measured."""

    source: str
    figure: str
    bar: Bar
    found: Interval | None

    @property
    def is_passed(self) -> bool:
        """Whether the figure was measured and passes its bar."""
        return self.found is not None and judge(self.bar, _estimate(self.found)).is_passed


Table = Mapping[str, Interval]


def judge_all(tables: Mapping[str, Table]) -> list[BarResult]:
    """Judge every source by its bars, including every position class that occurs."""
    judged = []
    for source, table in tables.items():
        for figure, bar in BARS.items():
            if source == HELD_OUT or figure in _OF_VECTORS:
                judged.append(BarResult(source, figure, bar, table.get(figure)))
        for null in _NULLS:
            for kind in POSITION_CLASSES:
                figure_of_class = table.get(f"verified_{null}/{kind}")
                if figure_of_class is not None:
                    judged.append(BarResult(source, f"verified_{null}/{kind}", _VERIFIED, figure_of_class))
    return judged


def document(tables: Mapping[str, Table], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return all results as one JSON object; ``ok`` means that every bar was measured and passed."""
    judged = judge_all(tables)
    return {
        "bench": "fidelity",
        **setting,
        "sources": {
            source: {name: figure.as_dict() for name, figure in table.items()}
            for source, table in tables.items()
        },
        "bars": [
            {
                "source": one.source,
                "figure": one.figure,
                "kind": one.bar.kind,
                "bar": one.bar.value,
                "found": None if one.found is None else one.found.as_dict(),
                "passed": one.is_passed,
            }
            for one in judged
        ],
        "ok": all(one.is_passed for one in judged),
    }


def table(tables: Mapping[str, Table]) -> str:
    """Render the figures of all rows, then those of groups, then the bars as text."""
    lines = []
    for source, figures in tables.items():
        lines += ["", f"{source}: value [95% interval], n"]
        lines += [_line(name, figures[name]) for name in figures if "/" not in name]
        lines += ["  by class, length, kind or distance:"]
        lines += [_line(name, figures[name]) for name in figures if "/" in name]
    lines += ["", "bars:"]
    lines += [_bar_line(one) for one in judge_all(tables)]
    return "\n".join(lines[1:])


def _line(name: str, figure: Interval) -> str:
    return f"  {name:44}{_shown(figure):>26}{figure.n:>8}"


def _bar_line(one: BarResult) -> str:
    verdict = "pass" if one.is_passed else "MISS"
    shown = "not measured" if one.found is None else _shown(one.found)
    is_open = one.found is not None and judge(one.bar, _estimate(one.found)).is_open
    openness = ", but the interval contains the bar" if is_open else ""
    limit = f"{one.bar.kind.replace('_', ' ')} {one.bar.value:g}"
    return f"  {verdict}  {one.source}: {one.figure}: {shown}, {limit}{openness}"


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)


def _shown(figure: Interval) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
