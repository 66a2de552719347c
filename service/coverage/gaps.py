"""Minutes without traffic: told apart by whether anybody was there who would have told. Pure.

A plugin keeps the counts of a day and sends them again, so a process that counted something before and
after a minute, with no more than a day between, would have told what it saw in it: without a count there
was no traffic. Of any other minute nobody reported: there was no traffic, no server, or counts were lost,
with a killed process or because nobody took them for over a day. Where several engines serve one model,
each answers for itself alone.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

MINUTE: Final = dt.timedelta(minutes=1)
KEPT: Final = dt.timedelta(days=1)
"""How long a process keeps counts to send them again (subtext_sidecar.local.ledger)."""


class Span(NamedTuple):
    """Minutes from ``start`` (inclusive) to ``end`` (exclusive), both on a minute's edge."""

    start: dt.datetime
    end: dt.datetime

    @property
    def minutes(self) -> int:
        """How many minutes it has."""
        return (self.end - self.start) // MINUTE


class GapReason(StrEnum):
    """Why no traffic was counted in a minute."""

    NO_TRAFFIC = "no_traffic"
    NOBODY_REPORTED = "nobody_reported"


class Gap(NamedTuple):
    """Minutes in a row without counted traffic, for one reason."""

    start: dt.datetime
    end: dt.datetime
    reason: GapReason

    @property
    def minutes(self) -> int:
        """How many minutes it has."""
        return (self.end - self.start) // MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteSums:
    """How many minutes were which; the first is the sum of the others."""

    total: int
    with_traffic: int
    no_traffic: int
    nobody_reported: int


def gaps(whole: Span, traffic: Iterable[Span], lived: Iterable[Span]) -> list[Gap]:
    """Return the gaps of the whole, oldest first.

    ``traffic`` are the minutes with counted traffic, ``lived`` those in which some process would have told;
    both in any order, overlapping or not, inside the whole or not.
    """
    alive, first = _merged(lived), 0
    found: list[Gap] = []
    for idle in _rest(whole, _merged(traffic)):
        # One walk through both: a year may have a gap every other minute.
        while first < len(alive) and alive[first].end <= idle.start:
            first += 1
        at, number = idle.start, first
        while number < len(alive) and alive[number].start < idle.end:
            life = alive[number]
            if at < life.start:
                found.append(Gap(at, life.start, GapReason.NOBODY_REPORTED))
                at = life.start
            until = min(life.end, idle.end)
            found.append(Gap(at, until, GapReason.NO_TRAFFIC))
            at, number = until, number + 1
        if at < idle.end:
            found.append(Gap(at, idle.end, GapReason.NOBODY_REPORTED))
    return found


def lives(heard: Iterable[Span]) -> list[Span]:
    """Return when one process would have told, by the spans in which it counted, in any order.

    It may have forgotten what it counted in a silence that is longer than `KEPT`.
    """
    found: list[Span] = []
    for span in sorted(heard):
        if found and span.start - found[-1].end <= KEPT:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def sums_by_step(
    whole: Span, found: Sequence[Gap], starts: Sequence[dt.datetime], length: dt.timedelta
) -> list[MinuteSums]:
    """Return the minutes of the whole by step; each step is ``length`` long and none overlaps another.

    A step that reaches beyond the whole has as many minutes as lie within.
    """
    idle: dict[GapReason, Counter[dt.datetime]] = {reason: Counter() for reason in GapReason}
    for gap in found:
        _spread(idle[gap.reason], gap, starts[0], length)
    totals = [
        max(0, (min(start + length, whole.end) - max(start, whole.start)) // MINUTE) for start in starts
    ]
    return [
        _sums(total, *(idle[reason][start] for reason in GapReason))
        for start, total in zip(starts, totals, strict=True)
    ]


def total(sums: Iterable[MinuteSums]) -> MinuteSums:
    """Return the sums of all steps together."""
    listed = list(sums)
    return _sums(
        sum(one.total for one in listed),
        sum(one.no_traffic for one in listed),
        sum(one.nobody_reported for one in listed),
    )


def _sums(whole: int, no_traffic: int, nobody_reported: int) -> MinuteSums:
    return MinuteSums(
        total=whole,
        with_traffic=whole - no_traffic - nobody_reported,
        no_traffic=no_traffic,
        nobody_reported=nobody_reported,
    )


def _spread(minutes: Counter[dt.datetime], gap: Gap, origin: dt.datetime, length: dt.timedelta) -> None:
    at = gap.start
    while at < gap.end:
        step = at - (at - origin) % length
        until = min(gap.end, step + length)
        minutes[step] += (until - at) // MINUTE
        at = until


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def _rest(whole: Span, merged: Sequence[Span]) -> list[Span]:
    """Return what is left of the whole without these spans, which are in order and apart."""
    left, at = [], whole.start
    for span in merged:
        if span.end <= whole.start:
            continue
        if span.start >= whole.end:
            break
        if at < span.start:
            left.append(Span(at, span.start))
        at = max(at, span.end)
    return [*left, Span(at, whole.end)] if at < whole.end else left
