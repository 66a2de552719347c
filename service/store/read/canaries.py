"""What became of a canary: how far it came, and what would have been flagged."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, cast, func, or_, select
from sqlalchemy.orm import Session

from service.store.tables import CanaryFlag, CanaryReading, CoverageMinute
from subtext_sidecar.contract.counters import PluginCounter, Stratum

_MISUSED: Final = (PluginCounter.IGNORED_CANARY_REPLAYED, PluginCounter.IGNORED_CANARY_ALTERED)


class Found(NamedTuple):
    """What the store has of one canary."""

    readings: int
    verified: int
    concepts: frozenset[str]
    """Of its flags."""
    is_replayed: bool = False
    """Whether two requests were read under its nonce, each by an engine to which the token was new."""
    is_complete: bool = True
    """Whether as many positions were read as the rule looks at. If not, no flag says nothing."""


def find(session: Session, nonce: str) -> Found:
    """Return what is stored of the canary with this nonce, by whatever decoder."""
    read = select(func.count(), func.count().filter(CanaryReading.verified)).where(
        CanaryReading.nonce == nonce
    )
    # A lead pages nobody once the rule has a rate, so it is not what a canary is waited for.
    counts = (CanaryFlag.status == "calibrated") | ~CanaryFlag.rule_is_calibrated
    flagged = select(CanaryFlag.concept).where(CanaryFlag.nonce == nonce, counts)
    readings, verified = session.execute(read).one()
    captures = _list_captures(session, nonce)
    return Found(
        readings,
        verified,
        frozenset(session.scalars(flagged)),
        is_replayed=_is_replayed(captures),
        is_complete=_is_complete(captures),
    )


class _Capture(NamedTuple):
    """What one decoder read of one capture at one layer."""

    decoder_id: uuid.UUID
    layer: int
    capture_id: uuid.UUID
    first: int
    last: int
    positions: int
    needed: int | None
    """Positions that the rules of the last reading look at; None for readings of before."""


def _list_captures(session: Session, nonce: str) -> list[_Capture]:
    capture = (CanaryReading.decoder_id, CanaryReading.layer, CanaryReading.capture_id)
    first = func.min(CanaryReading.position)
    query = (
        select(
            *capture,
            first,
            func.max(CanaryReading.position),
            func.count(CanaryReading.position.distinct()),
            func.max(CanaryReading.positions_needed),
        )
        .where(CanaryReading.nonce == nonce)
        .group_by(*capture)
        .order_by(CanaryReading.decoder_id, CanaryReading.layer, first)
    )
    return [_Capture(*row) for row in session.execute(query)]


def _is_replayed(captures: Sequence[_Capture]) -> bool:
    # One request has two captures where one engine computes its prompt and another its answer. Their
    # positions do not overlap; those of two requests do.
    return any(
        (one.decoder_id, one.layer) == (other.decoder_id, other.layer) and other.first <= one.last
        for one, other in pairwise(captures)
    )


def _is_complete(captures: Sequence[_Capture]) -> bool:
    # A flag is of one capture: where a request has two, one of them must be read as far.
    read = {(one.decoder_id, one.layer): False for one in captures}
    for one in captures:
        read[one.decoder_id, one.layer] |= one.positions >= (one.needed or 1)
    return bool(read) and all(read.values())


def count_hops(session: Session, model: str, since: dt.datetime) -> Mapping[tuple[str, str], int]:
    """Return what was counted of the model's canaries from a minute on, by hop and counter.

    Requests with a used token or one of another prompt are in it, whatever stratum they were drawn in.
    """
    query = (
        select(CoverageMinute.hop, CoverageMinute.counter, cast(func.sum(CoverageMinute.count), BigInteger))
        .where(
            CoverageMinute.model == model,
            or_(
                CoverageMinute.stratum == Stratum.CANARY,
                CoverageMinute.counter.in_(_MISUSED),
            ),
            CoverageMinute.minute >= since.replace(second=0, microsecond=0),
        )
        .group_by(CoverageMinute.hop, CoverageMinute.counter)
    )
    return {(hop, counter): total for hop, counter, total in session.execute(query)}
