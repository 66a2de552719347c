"""Precision of claims by recurrence, calibration curves and abstention, by the labeller's word. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.trust.rates import Rate, rate
from bench.trust.report import shown

AREA, KIND = "area", "kind"
NOTHING: Final = -1
"""Number of the area where a reading abstains."""
_BINS: Final = 10
_LEAST: Final = 0.01
"""Kinds below it are not kept in claims."""
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Scores = NDArray[np.floating[Any]]


class Recurrence(NamedTuple):
    """Claims of requests that the same number of positions make."""

    claim: str
    """What is claimed: an area or a kind."""
    positions: int
    """Positions of the request whose readings name it."""
    right: Rate
    """Of distinct claims; a request has few of the same recurrence, so they are nearly independent."""


class Bin(NamedTuple):
    """Claims of similar probability, of one position a request."""

    claim: str
    least: float
    """The bin's lower end."""
    claimed: float
    """Mean probability."""
    right: Rate


def area_recurrence(named: Numbers, right: Numbers) -> list[Recurrence]:
    """Return precision by recurrence of areas: ``named`` (requests, positions), ``right`` (requests,)."""
    counts, hits = [], []
    for of_one, truth in zip(named, right.tolist(), strict=True):
        areas, times = np.unique(of_one[of_one != NOTHING], return_counts=True)
        counts += times.tolist()
        hits += (areas == truth).tolist()
    return _by_recurrence(AREA, np.array(counts, np.int64), np.array(hits, bool))


def kind_recurrence(named: Flags, right: Flags) -> list[Recurrence]:
    """Return precision by recurrence of kinds.

    ``named`` is (requests, positions, kinds), ``right`` (requests, kinds).
    """
    counts = named.sum(axis=1)
    is_claimed = counts > 0
    return _by_recurrence(KIND, counts[is_claimed], right[is_claimed])


def _by_recurrence(claim: str, counts: Numbers, hits: Flags) -> list[Recurrence]:
    return [
        Recurrence(claim, positions, rate(hits[counts == positions]))
        for positions in np.unique(counts).tolist()
    ]


def curve(claim: str, claimed: Scores, right: Flags) -> list[Bin]:
    """Return the calibration curve of claims with these probabilities, (n,); empty bins are left out."""
    place = np.minimum((claimed * _BINS).astype(np.int64), _BINS - 1)
    return [
        Bin(claim, number / _BINS, float(claimed[place == number].mean()), rate(right[place == number]))
        for number in np.unique(place).tolist()
    ]


def kind_curve(claimed: Scores, right: Flags) -> list[Bin]:
    """Return the curve of all kinds together, (n, kinds) each, of probabilities that claims keep."""
    is_kept = claimed >= _LEAST
    return curve(KIND, claimed[is_kept], right[is_kept])


def expected_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of probability and share that is right, weighed by claims."""
    weights = np.array([one.right.n for one in bins], np.float64)
    distance = np.array([abs(one.claimed - one.right.share) for one in bins])
    return float((weights * distance).sum() / weights.sum())


class Abstention(NamedTuple):
    """How often no area is named."""

    readings: Rate
    """Of one random position a request."""
    requests: Rate
    """Of requests, at all of their positions."""


def abstention(named: Numbers, one_each: Numbers) -> Abstention:
    """Return both shares.

    ``named`` is (requests, positions), ``one_each`` (requests,) one column of each.
    """
    is_absent = named == NOTHING
    picked = is_absent[np.arange(len(named)), one_each]
    return Abstention(rate(picked), rate(np.asarray(is_absent.all(axis=1), bool)))


def text(rows: Sequence[Recurrence], bins: Sequence[Bin], absent: Abstention) -> str:
    """Render all figures."""
    lines = [f"claims; no area is named in {shown(absent.readings)} readings, one a request,"]
    lines.append(f"  and at no position of {shown(absent.requests)} requests")
    lines.append("\nprecision of claims by how many of a request's positions make them [95%] (n)")
    lines += [f"  {row.claim:6}{row.positions:<4}{shown(row.right)}" for row in rows]
    for claim in (AREA, KIND):
        own = [one for one in bins if one.claim == claim]
        lines.append(f"\ncalibration curve, {claim}; expected calibration error {expected_error(own):.3f}")
        lines += [
            f"  from {one.least:.1f}: claimed {one.claimed:.3f}, right {shown(one.right)}" for one in own
        ]
    return "\n".join(lines)


def document(rows: Sequence[Recurrence], bins: Sequence[Bin], absent: Abstention) -> Mapping[str, Any]:
    """Return everything as one JSON object."""
    return {
        "recurrence": [{**row._asdict(), "right": row.right._asdict()} for row in rows],
        "curve": [{**one._asdict(), "right": one.right._asdict()} for one in bins],
        "abstention": {name: one._asdict() for name, one in absent._asdict().items()},
    }
