"""The equations that hold between counters once nothing is on its way, as data.

A row that comes into a place also comes out of it, counted once under one name on each side. The
engine's process needs none of this and does not import it.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from subtext_sidecar.contract.counters import (
    CounterName,
    Hop,
    LossKind,
    PluginCounter,
    SidecarCounter,
    WorkerCounter,
    loss_of,
)


class Place(StrEnum):
    """Where rows come in and go out: a process, or what lies between two."""

    PLUGIN = "plugin"
    SOCKET = "socket"
    SIDECAR = "sidecar"
    STREAM = "stream"
    WORKER = "worker"


class Losses(NamedTuple):
    """Every counter of one kind of loss at one hop, but for one at most.

    It goes by the name, so a reason of another version balances like those that are known here.
    """

    hop: Hop
    kind: LossKind
    excepted: CounterName | None = None

    def __str__(self) -> str:
        return f"{self.kind}_*" + (f" except {self.excepted}" if self.excepted else "")


Term = CounterName | Losses


class Equation(NamedTuple):
    """``rows_in`` and ``rows_out`` have the same sum."""

    place: Place
    meaning: str
    rows_in: tuple[Term, ...]
    rows_out: tuple[Term, ...]

    def __str__(self) -> str:
        return " = ".join(" + ".join(map(str, side)) for side in (self.rows_in, self.rows_out))


EQUATIONS: Final = (
    Equation(
        Place.PLUGIN,
        "Every sampled row was handed over or dropped.",
        (PluginCounter.ROWS_SAMPLED,),
        (PluginCounter.ROWS_HANDED_OVER, Losses(Hop.PLUGIN, LossKind.DROPPED)),
    ),
    Equation(
        Place.SOCKET,
        "Every row that the plugin handed over came to the sidecar.",
        (PluginCounter.ROWS_HANDED_OVER,),
        (SidecarCounter.ROWS_RECEIVED,),
    ),
    Equation(
        Place.SIDECAR,
        "Every received row was shipped, thinned or dropped.",
        (SidecarCounter.ROWS_RECEIVED,),
        (
            SidecarCounter.ROWS_SHIPPED,
            SidecarCounter.THINNED,
            Losses(Hop.SIDECAR, LossKind.DROPPED, excepted=SidecarCounter.DROPPED_TRIMMED),
        ),
    ),
    Equation(
        Place.STREAM,
        "Every shipped row was read or trimmed, and one that was both counts on both sides.",
        (SidecarCounter.ROWS_SHIPPED, WorkerCounter.ROWS_TRIMMED_BUT_READ),
        (WorkerCounter.ROWS_CONSUMED, SidecarCounter.DROPPED_TRIMMED),
    ),
    Equation(
        Place.WORKER,
        "Every row that a worker took was decoded, known already or set aside.",
        (WorkerCounter.ROWS_CONSUMED,),
        (
            WorkerCounter.ROWS_DECODED,
            WorkerCounter.ROWS_DUPLICATE,
            Losses(Hop.WORKER, LossKind.DEAD_LETTERED),
        ),
    ),
)


def has(side: tuple[Term, ...], hop: str, counter: str) -> bool:
    """Tell whether what a hop counted under a name is part of a side of an equation."""
    return any(_is_of(term, hop, counter) for term in side)


def _is_of(term: Term, hop: str, counter: str) -> bool:
    if isinstance(term, CounterName):
        return (term.hop, term) == (hop, counter)
    lost = loss_of(counter)
    return term.hop == hop and lost is not None and lost.kind == term.kind and counter != term.excepted
