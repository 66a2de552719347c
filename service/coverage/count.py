"""What every rule in here is given, and the same told step by step."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Count(NamedTuple):
    """The sum of one counter over all sources within one step.

    ``hop``, ``stratum`` and ``counter`` are names of the contract, or what another version stored.
    """

    start: dt.datetime  # of the step
    hop: str
    model: str
    stratum: str
    counter: str
    value: int
    settled: int  # the part of minutes before the model's settled_before


class StepCounts(NamedTuple):
    """Every counter of one hop, model and stratum within one step."""

    start: dt.datetime  # of the step
    hop: str
    model: str
    stratum: str
    counters: dict[str, int]


def by_step(counts: Iterable[Count]) -> list[StepCounts]:
    """Return the counts, which are one a counter and step, in the order of the fields of `StepCounts`."""
    steps: defaultdict[tuple[dt.datetime, str, str, str], dict[str, int]] = defaultdict(dict)
    for count in counts:
        steps[count.start, count.hop, count.model, count.stratum][count.counter] = count.value
    return [StepCounts(*of, counters) for of, counters in sorted(steps.items())]
