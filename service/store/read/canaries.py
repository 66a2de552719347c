"""What became of a canary: how far it came, and what would have been flagged."""

import datetime as dt
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import BigInteger, cast, func, or_, select
from sqlalchemy.orm import Session

from service.store.tables import CanaryFlag, CanaryReading, CoverageMinute
from subtext_sidecar.contract.counters import PluginCounter, Stratum


class Found(NamedTuple):
    """What the store has of one canary."""

    readings: int
    verified: int
    concepts: frozenset[str]
    """Of its flags."""
    is_replayed: bool = False
    """Whether two requests were read under its nonce, each by an engine to which the token was new."""


def find(session: Session, nonce: str) -> Found:
    """Return what is stored of the canary with this nonce, by whatever decoder."""
    read = select(func.count(), func.count().filter(CanaryReading.verified)).where(
        CanaryReading.nonce == nonce
    )
    # A lead pages nobody once the rule has a rate, so it is not what a canary is waited for.
    counts = (CanaryFlag.status == "calibrated") | ~CanaryFlag.rule_is_calibrated
    flagged = select(CanaryFlag.concept).where(CanaryFlag.nonce == nonce, counts)
    readings, verified = session.execute(read).one()
    return Found(readings, verified, frozenset(session.scalars(flagged)), _is_replayed(session, nonce))


def _is_replayed(session: Session, nonce: str) -> bool:
    # One request has two captures where one engine computes its prompt and another its answer. Their
    # positions do not overlap; those of two requests do.
    capture = (CanaryReading.decoder_id, CanaryReading.layer, CanaryReading.capture_id)
    first, last = func.min(CanaryReading.position), func.max(CanaryReading.position)
    query = (
        select(*capture, first, last)
        .where(CanaryReading.nonce == nonce)
        .group_by(*capture)
        .order_by(CanaryReading.decoder_id, CanaryReading.layer, first)
    )
    return any(
        (one[0], one[1]) == (other[0], other[1]) and other[3] <= one[4]
        for one, other in pairwise(session.execute(query))
    )


def count_hops(session: Session, model: str, since: dt.datetime) -> Mapping[tuple[str, str], int]:
    """Return what was counted of the model's canaries from a minute on, by hop and counter.

    Requests whose token had been used before are in it, whatever stratum they were drawn in.
    """
    query = (
        select(CoverageMinute.hop, CoverageMinute.counter, cast(func.sum(CoverageMinute.count), BigInteger))
        .where(
            CoverageMinute.model == model,
            or_(
                CoverageMinute.stratum == Stratum.CANARY,
                CoverageMinute.counter == PluginCounter.IGNORED_CANARY_REPLAYED,
            ),
            CoverageMinute.minute >= since.replace(second=0, microsecond=0),
        )
        .group_by(CoverageMinute.hop, CoverageMinute.counter)
    )
    return {(hop, counter): total for hop, counter, total in session.execute(query)}
