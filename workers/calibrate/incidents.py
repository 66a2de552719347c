"""Incident-level scores: how close a request comes to a flag, and the rule for a target rate. Pure.

A flag needs k positions that match. Matchers without a threshold match or do not (`CERTAIN`); the scores of
the others are compared with one threshold. Rules are ordered from loose to strict, so that one number says
which of them a request meets:

- below 1: the k-th largest score over the request's positions. The request is flagged when that exceeds the
  threshold.
- 1 + j: k + j positions match for certain. No threshold on the others keeps the request from a flag; only
  more required positions do, and then the others do not count any more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.calibrate.rates import threshold_for
from workers.judge.matching import CERTAIN, NOTHING

_LEAST_THRESHOLD: Final = 0.01
"""Probabilities below it are not kept in claims, so they cannot be told apart."""


class Rule(NamedTuple):
    """When a concept flags a request."""

    positions_required: int
    threshold: float | None
    """On the scores of the matchers that have one; None where no matcher has one, or none counts."""
    allowed: int
    """Number of benign requests that the target rate lets the rule flag."""


def score(positions: NDArray[np.floating[Any]], positions_required: int) -> float:
    """Return a request's incident-level score from the scores of its positions, (m,)."""
    certain = int((positions >= CERTAIN).sum())
    if certain >= positions_required:
        return CERTAIN + certain - positions_required
    if len(positions) < positions_required:
        return NOTHING
    return float(np.sort(positions)[-positions_required])


def choose_rule(
    scores: NDArray[np.floating[Any]],
    *,
    positions_required: int,
    target: float,
    least_threshold: float | None,
) -> Rule:
    """Return the loosest rule for the target rate, from benign requests' incident-level scores, (n,).

    No threshold is below ``least_threshold``, the operator's own; None for a concept without any. Raises
    ValueError below `rates.requests_needed`.
    """
    found = threshold_for(scores, target)
    if found.above >= CERTAIN:
        more = round(found.above - CERTAIN) + 1
        return Rule(positions_required + more, None if least_threshold is None else CERTAIN, found.allowed)
    if least_threshold is None:
        return Rule(positions_required, None, found.allowed)
    above = float(np.nextafter(found.above, CERTAIN))
    return Rule(positions_required, max(above, least_threshold, _LEAST_THRESHOLD), found.allowed)


def is_flagged(positions: NDArray[np.floating[Any]], rule: Rule) -> bool:
    """Return whether the rule flags a request with these scores of its positions, (m,)."""
    threshold = CERTAIN if rule.threshold is None else rule.threshold
    return int((positions >= threshold).sum()) >= rule.positions_required


def by_request(requests: Sequence[str], rows: Sequence[bool]) -> Mapping[str, NDArray[np.int64]]:
    """Return the rows that count, by request; a request none of whose rows counts has an empty array."""
    found: dict[str, list[int]] = {}
    for row, (request, counts) in enumerate(zip(requests, rows, strict=True)):
        found.setdefault(request, [])
        if counts:
            found[request].append(row)
    return {request: np.array(places, np.int64) for request, places in found.items()}
