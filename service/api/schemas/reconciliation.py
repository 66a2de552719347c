"""Whether what came into each hop also came out of it: the coverage ledger balanced, hop by hop.

Rows count in the minute of their capture at every hop, so any range of minutes can be balanced. Two
things bend that, and both are named in the answer: minutes that rows may still be on their way from,
and rows of which a hop could no longer tell the stratum (invalid or trimmed ones).
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from pydantic import Field

from service.api.schemas.answer import Answer
from service.store import coverage

Hop = Literal["plugin", "socket", "sidecar", "stream", "worker"]
_EQUATIONS: Final[dict[Hop, str]] = {
    "plugin": "rows_sampled = rows_handed_over + dropped_*",
    "socket": "rows_handed_over = rows_received",
    "sidecar": "rows_received = rows_shipped + thinned + dropped_* except dropped_trimmed",
    "stream": "rows_shipped + rows_trimmed_but_read = rows_consumed + dropped_trimmed",
    "worker": "rows_consumed = rows_decoded + rows_duplicate + dead_lettered_*",
}
# Which counter of which process comes out of which hop, and into which one. A prefix ends in "_".
_OUT: Final[tuple[tuple[str, str, Hop], ...]] = (
    ("plugin", "rows_handed_over", "plugin"),
    ("plugin", "dropped_", "plugin"),
    ("sidecar", "rows_received", "socket"),
    ("sidecar", "rows_shipped", "sidecar"),
    ("sidecar", "thinned", "sidecar"),
    ("sidecar", "dropped_trimmed", "stream"),
    ("sidecar", "dropped_", "sidecar"),
    ("worker", "rows_consumed", "stream"),
    ("worker", "rows_decoded", "worker"),
    ("worker", "rows_duplicate", "worker"),
    ("worker", "dead_lettered_", "worker"),
)
_IN: Final[dict[tuple[str, str], Hop]] = {
    ("plugin", "rows_sampled"): "plugin",
    ("plugin", "rows_handed_over"): "socket",
    ("sidecar", "rows_received"): "sidecar",
    ("sidecar", "rows_shipped"): "stream",
    ("worker", "rows_trimmed_but_read"): "stream",
    ("worker", "rows_consumed"): "worker",
}
_UNKNOWN: Final[coverage.Stratum] = "unknown"


class HopBalance(Answer):
    """What came into one hop and what came out of it."""

    hop: Hop = Field(description="A process, or what lies between two: `socket` and `stream`.")
    equation: str = Field(description="What must hold once nothing is on its way.")
    rows_in: dict[str, int] = Field(examples=[{"rows_sampled": 120}])
    rows_out: dict[str, int] = Field(examples=[{"rows_handed_over": 118, "dropped_queue_full": 2}])
    in_flight: int = Field(
        description="Came in and not out in minutes that are not settled: still on its way. Negative while "
        "counts lag behind the rows that they count.",
        examples=[0],
    )
    unattributed: int = Field(
        description="What came out under the stratum `unknown`, as invalid and trimmed rows do, and could "
        "be of this stratum; of `unknown` itself, all of it as a negative number. Over all strata: 0.",
        examples=[0],
    )
    difference: int = Field(
        description="In, less out, in flight and unattributed. Positive: lost without a count, as with a "
        "killed process. Negative: counts were lost, or counted twice.",
        examples=[0],
    )
    balanced: bool = Field(description="Whether `difference` is 0.")


class StratumBalance(Answer):
    """The hops for requests of one stratum."""

    stratum: str = Field(examples=["uniform"])
    balanced: bool = Field(description="Whether every hop is.")
    hops: list[HopBalance]


class Reconciliation(Answer):
    """The hops of one model."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    settled_before: dt.datetime | None = Field(
        description="What was captured before this time should have arrived: workers have since read rows "
        "that were captured ten minutes later. Null when no worker has read any row of the model."
    )
    balanced: bool = Field(description="Whether every hop is, over all strata.")
    hops: list[HopBalance] = Field(description="Over all strata.")
    strata: list[StratumBalance]


@dataclass(slots=True)
class _Flow:
    """Sums of one hop."""

    rows_in: Counter[str] = field(default_factory=Counter)
    rows_out: Counter[str] = field(default_factory=Counter)
    settled: int = 0  # in, less out, in settled minutes
    unsettled: int = 0

    def enter(self, count: coverage.Count) -> None:
        self.rows_in[count.counter] += count.value
        self._weigh(count, 1)

    def leave(self, count: coverage.Count) -> None:
        self.rows_out[count.counter] += count.value
        self._weigh(count, -1)

    def _weigh(self, count: coverage.Count, sign: int) -> None:
        self.settled += sign * count.settled
        self.unsettled += sign * (count.value - count.settled)


class _Rest(NamedTuple):
    """What came in and did not come out, in settled minutes and in the others."""

    settled: int
    unsettled: int


_Strata = dict[str, _Flow]


def reconciliations(
    counts: Iterable[coverage.Count],
    settled_before: Mapping[str, dt.datetime],
    stratum: coverage.Stratum | None = None,
) -> list[Reconciliation]:
    """Return the balance of every model, its strata narrowed to ``stratum``; totals are over all."""
    models: defaultdict[str, dict[Hop, _Strata]] = defaultdict(_hops)
    for count in counts:
        _add(models[count.model], count)
    return [
        _reconciliation(model, hops, settled_before.get(model), stratum)
        for model, hops in sorted(models.items())
    ]


def _hops() -> dict[Hop, _Strata]:
    return {hop: defaultdict(_Flow) for hop in _EQUATIONS}


def _add(hops: Mapping[Hop, _Strata], count: coverage.Count) -> None:
    if entered := _IN.get((count.hop, count.counter)):
        hops[entered][count.stratum].enter(count)
    for process, counter, left in _OUT:
        is_it = count.counter.startswith(counter) if counter.endswith("_") else count.counter == counter
        if process == count.hop and is_it:
            hops[left][count.stratum].leave(count)
            return


def _reconciliation(
    model: str,
    hops: Mapping[Hop, _Strata],
    settled_before: dt.datetime | None,
    stratum: coverage.Stratum | None,
) -> Reconciliation:
    totals = [_total(hop, strata) for hop, strata in hops.items()]
    names = sorted({name for strata in hops.values() for name in strata})
    return Reconciliation(
        model=model,
        settled_before=settled_before,
        balanced=all(total.balanced for total in totals),
        hops=totals,
        strata=[_stratum(name, hops) for name in names if stratum in {None, name}],
    )


def _total(hop: Hop, strata: _Strata) -> HopBalance:
    known = [flow for name, flow in strata.items() if name != _UNKNOWN]
    rest = _assign(
        _Rest(sum(flow.settled for flow in known), sum(flow.unsettled for flow in known)),
        strata.get(_UNKNOWN, _Flow()),
    )
    whole = _Flow(
        rows_in=sum((flow.rows_in for flow in strata.values()), Counter()),
        rows_out=sum((flow.rows_out for flow in strata.values()), Counter()),
    )
    return _balance(hop, whole, rest, unattributed=0)


def _assign(known: _Rest, unknown: _Flow) -> _Rest:
    """Take rows that left as ``unknown`` from what remains of the others, the oldest first.

    They are counted in the minute in which they left, which may be long after that of their capture.
    """
    late = _late(unknown)
    if not late:
        return _Rest(known.settled + unknown.settled, known.unsettled + unknown.unsettled)
    from_settled = min(late, max(known.settled, 0))
    return _Rest(known.settled - from_settled, known.unsettled - (late - from_settled))


def _late(unknown: _Flow) -> int:
    return max(0, -(unknown.settled + unknown.unsettled))


def _stratum(name: str, hops: Mapping[Hop, _Strata]) -> StratumBalance:
    balances = [_of_stratum(hop, name, strata) for hop, strata in hops.items()]
    return StratumBalance(
        stratum=name, balanced=all(balance.balanced for balance in balances), hops=balances
    )


def _of_stratum(hop: Hop, name: str, strata: _Strata) -> HopBalance:
    flow, late = strata.get(name, _Flow()), _late(strata.get(_UNKNOWN, _Flow()))
    if name == _UNKNOWN and late:
        return _balance(hop, flow, _Rest(-late, 0), unattributed=-late)
    rest = _Rest(flow.settled, flow.unsettled)
    return _balance(hop, flow, rest, unattributed=min(late, max(flow.settled, 0)))


def _balance(hop: Hop, flow: _Flow, rest: _Rest, *, unattributed: int) -> HopBalance:
    difference = rest.settled - unattributed
    return HopBalance(
        hop=hop,
        equation=_EQUATIONS[hop],
        rows_in=dict(sorted(flow.rows_in.items())),
        rows_out=dict(sorted(flow.rows_out.items())),
        in_flight=rest.unsettled,
        unattributed=unattributed,
        difference=difference,
        balanced=difference == 0,
    )
