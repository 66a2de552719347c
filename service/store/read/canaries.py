"""What became of a canary: how far it came, and what would have been flagged."""

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from service.store.tables import CanaryFlag, CanaryReading, CoverageMinute
from subtext_sidecar.contract.counters import Stratum


class Found(NamedTuple):
    """What the store has of one canary."""

    readings: int
    verified: int
    concepts: frozenset[str]
    """Of its flags."""


def find(session: Session, nonce: str) -> Found:
    """Return what is stored of the canary with this nonce, by whatever decoder."""
    read = select(func.count(), func.count().filter(CanaryReading.verified)).where(
        CanaryReading.nonce == nonce
    )
    # A lead pages nobody once the rule has a rate, so it is not what a canary is waited for.
    counts = (CanaryFlag.status == "calibrated") | ~CanaryFlag.rule_is_calibrated
    flagged = select(CanaryFlag.concept).where(CanaryFlag.nonce == nonce, counts)
    readings, verified = session.execute(read).one()
    return Found(readings, verified, frozenset(session.scalars(flagged)))


def count_hops(session: Session, model: str, since: dt.datetime) -> Mapping[tuple[str, str], int]:
    """Return what was counted of the model's canaries from a minute on, by hop and counter."""
    query = (
        select(CoverageMinute.hop, CoverageMinute.counter, cast(func.sum(CoverageMinute.count), BigInteger))
        .where(
            CoverageMinute.model == model,
            CoverageMinute.stratum == Stratum.CANARY,
            CoverageMinute.minute >= since.replace(second=0, microsecond=0),
        )
        .group_by(CoverageMinute.hop, CoverageMinute.counter)
    )
    return {(hop, counter): total for hop, counter, total in session.execute(query)}
