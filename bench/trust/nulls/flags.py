"""What the worker's own rule flags of readings, and the figures of every null."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trust.nulls.vectors import BENIGN
from bench.trust.rates import Rate, rate
from bench.trust.reading import Incidents, Read
from bench.trust.report import BarResult, bar_lines, shown
from service.store.write.evidence import Evidence, Sighting
from workers.calibrate.rates import upper_limit
from workers.judge.calibration import InForce
from workers.judge.flags import decide
from workers.judge.matching import ConceptMatcher

LIMIT: Final = 0.02
ANY: Final = "any concept"
_NEVER: Final = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
Flags = NDArray[np.bool_]
"""(requests, concepts)."""


class Rule(NamedTuple):
    """What the worker judges by."""

    matcher: ConceptMatcher
    in_force: InForce


class NullFigure(NamedTuple):
    """How many requests of one null are flagged, by calibrated flags."""

    null: str
    flagged: Rate
    """Of requests, by any concept, with the two-sided 95% interval."""
    limit: float
    """Of the same share, one-sided with 95% confidence."""
    by_concept: Mapping[str, int]
    """Flagged requests; concepts that flag none are left out."""
    verified: Rate
    """Of readings: how many get as far as the rule. Those of one request are not independent."""


def flags(rule: Rule, incidents: Incidents, reads: Sequence[Sequence[Read]]) -> Flags:
    """Return which requests raise a calibrated flag of which concept, judged as the worker does.

    Only verified readings match. All positions are of the random baseline, read in this order.
    """
    names = list(rule.in_force.rules)
    rows = incidents.vectors.reshape(-1, incidents.vectors.shape[-1])
    matches = rule.matcher.match(
        [read.text for of_one in reads for read in of_one],
        vectors=rows if rule.matcher.needs_vectors else None,
    )
    each = incidents.places.shape[1]
    found = np.zeros((len(reads), len(names)), bool)
    for request, (of_one, places) in enumerate(zip(reads, incidents.places.tolist(), strict=True)):
        of_positions = zip(of_one, places, matches[request * each : (request + 1) * each], strict=True)
        sightings = [
            Sighting(match.concept, place, _NEVER)
            for read, place, matched in of_positions
            if read.verified
            for match in matched
        ]
        evidence = Evidence(sightings, places, sum(read.verified for read in of_one))
        for decision in decide(rule.in_force.rules, evidence):
            found[request, names.index(decision.concept)] = decision.calibrated is not None
    return found


def figure(null: str, flagged: Flags, names: Sequence[str], reads: Sequence[Sequence[Read]]) -> NullFigure:
    """Return a null's figure."""
    by_any = np.asarray(flagged.any(axis=1), bool)
    counts = dict(zip(names, flagged.sum(axis=0).tolist(), strict=True))
    return NullFigure(
        null,
        rate(by_any),
        upper_limit(int(by_any.sum()), len(by_any)),
        {name: count for name, count in counts.items() if count},
        rate(np.array([read.verified for of_one in reads for read in of_one], bool)),
    )


def judge(figures: Sequence[NullFigure]) -> list[BarResult]:
    """Return the bar of every null; benign requests, as they were, are shown beside them."""
    return [
        BarResult(
            f"null, {one.null}: requests with a calibrated flag of any concept",
            f"at most {LIMIT:.0%}",
            f"{shown(one.flagged)}, one-sided limit {one.limit:.4f}",
            one.flagged.share <= LIMIT,
        )
        for one in figures
        if one.null != BENIGN
    ]


def text(figures: Sequence[NullFigure], bars: Sequence[BarResult]) -> str:
    """Render figures and bars."""
    lines = ["nulls; requests with a calibrated flag of any concept [95%] (n), judged as the worker does"]
    lines.append(f"  {'null':18}{'flagged':38}{'limit':9}{'verified readings':42}by concept")
    lines += [
        f"  {one.null:18}{shown(one.flagged):38}{one.limit:<9.4f}{shown(one.verified):42}"
        f"{', '.join(f'{name} {count}' for name, count in one.by_concept.items()) or '-'}"
        for one in figures
    ]
    return "\n".join([*lines, *bar_lines(bars)])


def document(
    figures: Sequence[NullFigure], bars: Sequence[BarResult], setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything as one JSON object."""
    return {
        **setting,
        "figures": [
            {**one._asdict(), "flagged": one.flagged._asdict(), "verified": one.verified._asdict()}
            for one in figures
        ],
        "bars": [bar._asdict() for bar in bars],
    }
