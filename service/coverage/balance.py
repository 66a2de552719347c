"""Check the contract's equations: the rows that come into each place also come out of it.

Every hop counts a row in the minute of its capture, so any range of minutes can be balanced. A balance has
two corrections: rows of unsettled minutes may still be in flight, and a hop cannot tell the stratum of
invalid or trimmed rows.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from service.coverage.count import Count
from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.equations import EQUATIONS, Equation, Place, has


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceBalance:
    """Rows that came into and out of one place."""

    place: Place
    equation: str
    rows_in: dict[str, int]  # by counter
    rows_out: dict[str, int]  # by counter
    in_flight: int  # in less out, in unsettled minutes
    unattributed: int  # rows out as ``unknown`` that may belong to this stratum; 0 over all strata
    difference: int  # in less out, less ``in_flight`` and ``unattributed``

    @property
    def balanced(self) -> bool:
        """Whether no row is missing and none is surplus."""
        return not self.difference


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumBalance:
    """The balances of every place, for one stratum."""

    stratum: str
    places: list[PlaceBalance]

    @property
    def balanced(self) -> bool:
        """Whether every place is balanced."""
        return all(place.balanced for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBalance:
    """The balances of every place for one model, over all strata and by stratum."""

    model: str
    settled_before: dt.datetime | None  # None while no worker has read a row of the model
    places: list[PlaceBalance]
    strata: list[StratumBalance]

    @property
    def balanced(self) -> bool:
        """Whether every place is balanced over all strata."""
        return all(place.balanced for place in self.places)


@dataclass(slots=True)
class _Flow:
    """Sums for one place and stratum."""

    rows_in: Counter[str] = field(default_factory=Counter)
    rows_out: Counter[str] = field(default_factory=Counter)
    settled: int = 0  # in less out, in settled minutes
    unsettled: int = 0  # in less out, in the other minutes

    def enter(self, count: Count) -> None:
        self.rows_in[count.counter] += count.value
        self._weigh(count, 1)

    def leave(self, count: Count) -> None:
        self.rows_out[count.counter] += count.value
        self._weigh(count, -1)

    def _weigh(self, count: Count, sign: int) -> None:
        self.settled += sign * count.settled
        self.unsettled += sign * (count.value - count.settled)


class _Remainder(NamedTuple):
    """Rows in less rows out, in settled and in unsettled minutes."""

    settled: int
    unsettled: int


_Strata = dict[str, _Flow]
_Places = Mapping[Place, _Strata]


class _Ways(NamedTuple):
    """The places that a counter's rows come into and out of."""

    entered: tuple[Place, ...]
    left: tuple[Place, ...]


def balances(
    counts: Iterable[Count],
    settled_before: Mapping[str, dt.datetime],
    stratum: Stratum | None = None,
) -> list[ModelBalance]:
    """Return every model's balance; ``stratum`` restricts the list of strata but not the totals."""
    models: defaultdict[str, _Places] = defaultdict(_places)
    for count in counts:
        _add(models[count.model], count)
    return [
        _model(model, places, settled_before.get(model), stratum)
        for model, places in sorted(models.items())
    ]


def _places() -> _Places:
    return {equation.place: defaultdict(_Flow) for equation in EQUATIONS}


def _add(places: _Places, count: Count) -> None:
    ways = _ways(count.hop, count.counter)
    for place in ways.entered:
        places[place][count.stratum].enter(count)
    for place in ways.left:
        places[place][count.stratum].leave(count)


@lru_cache(maxsize=1024)  # the same counter recurs in thousands of minutes
def _ways(hop: str, counter: str) -> _Ways:
    return _Ways(
        tuple(equation.place for equation in EQUATIONS if has(equation.rows_in, hop, counter)),
        tuple(equation.place for equation in EQUATIONS if has(equation.rows_out, hop, counter)),
    )


def _model(
    model: str, places: _Places, settled_before: dt.datetime | None, stratum: Stratum | None
) -> ModelBalance:
    names = sorted({name for strata in places.values() for name in strata})
    return ModelBalance(
        model=model,
        settled_before=settled_before,
        places=[_total(equation, places[equation.place]) for equation in EQUATIONS],
        strata=[
            StratumBalance(
                stratum=name,
                places=[_of_stratum(equation, name, places[equation.place]) for equation in EQUATIONS],
            )
            for name in names
            if stratum in {None, name}
        ],
    )


def _total(equation: Equation, strata: _Strata) -> PlaceBalance:
    known = [flow for name, flow in strata.items() if name != Stratum.UNKNOWN]
    rest = _assign(
        _Remainder(sum(flow.settled for flow in known), sum(flow.unsettled for flow in known)),
        strata.get(Stratum.UNKNOWN, _Flow()),
    )
    whole = _Flow(
        rows_in=sum((flow.rows_in for flow in strata.values()), Counter()),
        rows_out=sum((flow.rows_out for flow in strata.values()), Counter()),
    )
    return _balance(equation, whole, rest, unattributed=0)


def _assign(known: _Remainder, unknown: _Flow) -> _Remainder:
    """Subtract rows that came out as ``unknown`` from the other strata's remainder, settled minutes first.

    The minute of an ``unknown`` row is that of its loss, which may be long after its capture.
    """
    late = _late(unknown)
    if not late:
        return _Remainder(known.settled + unknown.settled, known.unsettled + unknown.unsettled)
    from_settled = min(late, max(known.settled, 0))
    return _Remainder(known.settled - from_settled, known.unsettled - (late - from_settled))


def _late(unknown: _Flow) -> int:
    return max(0, -(unknown.settled + unknown.unsettled))


def _of_stratum(equation: Equation, name: str, strata: _Strata) -> PlaceBalance:
    flow, late = strata.get(name, _Flow()), _late(strata.get(Stratum.UNKNOWN, _Flow()))
    if name == Stratum.UNKNOWN and late:
        return _balance(equation, flow, _Remainder(-late, 0), unattributed=-late)
    rest = _Remainder(flow.settled, flow.unsettled)
    return _balance(equation, flow, rest, unattributed=min(late, max(flow.settled, 0)))


def _balance(equation: Equation, flow: _Flow, rest: _Remainder, *, unattributed: int) -> PlaceBalance:
    return PlaceBalance(
        place=equation.place,
        equation=str(equation),
        rows_in=dict(sorted(flow.rows_in.items())),
        rows_out=dict(sorted(flow.rows_out.items())),
        in_flight=rest.unsettled,
        unattributed=unattributed,
        difference=rest.settled - unattributed,
    )
