"""Counts by step: the input of every rule in this package."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Count(NamedTuple):
    """The sum of one counter over all sources within one step.

    ``hop``, ``stratum`` and ``counter`` are the contract's names, or unknown names from another version.
    """

    start: dt.datetime  # of the step
    hop: str
    model: str
    stratum: str
    counter: str
    value: int
    settled: int  # the part of ``value`` from minutes before the model's settled_before


class StepCounts(NamedTuple):
    """All counters of one hop, model and stratum within one step."""

    start: dt.datetime  # of the step
    hop: str
    model: str
    stratum: str
    counters: dict[str, int]


def by_step(counts: Iterable[Count]) -> list[StepCounts]:
    """Group counts by step, hop, model and stratum, in this order; each counter occurs once per group."""
    steps: defaultdict[tuple[dt.datetime, str, str, str], dict[str, int]] = defaultdict(dict)
    for count in counts:
        steps[count.start, count.hop, count.model, count.stratum][count.counter] = count.value
    return [StepCounts(*key, counters) for key, counters in sorted(steps.items())]
