"""Which share of the sampled rows arrived, by stratum and minute. Pure."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from subtext_sidecar.contract.counters import Stratum


class MinuteRows(NamedTuple):
    """Rows of one stratum that were captured in one minute."""

    start: dt.datetime  # of the minute
    stratum: str
    due: int  # sampled, less those that chance left out with a known probability and those after an end
    lost: int  # dropped or dead-lettered at any hop


class Cell(NamedTuple):
    """The resolution at which losses are known."""

    start: dt.datetime  # of the minute
    stratum: str


def retained_by_cell(minutes: Iterable[MinuteRows]) -> Mapping[Cell, float]:
    """Return the share of the due rows that were not lost, in (0, 1], for each cell with due rows.

    A row that no longer told its stratum when it was lost counts against every stratum of its minute alike.
    """
    listed = list(minutes)
    due = Counter[dt.datetime]()
    untold = Counter[dt.datetime]()
    for one in listed:
        due[one.start] += one.due - one.lost if one.stratum != Stratum.UNKNOWN else 0
        untold[one.start] += one.lost if one.stratum == Stratum.UNKNOWN else 0
    return {
        Cell(one.start, one.stratum): _kept(one.due, one.lost) * _kept(due[one.start], untold[one.start])
        for one in listed
        if one.stratum != Stratum.UNKNOWN and one.due > 0
    }


def _kept(due: int, lost: int) -> float:
    """Return the kept share; at least one row was kept, or there would be no reading to weigh."""
    return max(1, due - lost) / max(1, due) if lost > 0 else 1.0
