"""Store the readings of canaries, and what would have been flagged. The caller commits.

They have tables of their own, so that no query of the traffic can meet them: no share, flag, incident or
webhook is of a canary. The rule that flags them is the traffic's.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
from service.store.tables import CanaryFlag, CanaryReading, FlagStatus
from service.store.write.evidence import Decision, Evidence, Sighting, Verdicts
from service.store.write.readings import NewReading


class NewCanaryReading(NamedTuple):
    """A reading of a canary's sample, whose capture id is known."""

    nonce: str
    reading: NewReading


class _Subject(NamedTuple):
    """What flags belong to, as for traffic: one capture at one layer."""

    capture_id: uuid.UUID
    layer: int
    nonce: str


def list_known_readings(
    session: Session, sample_ids: Sequence[uuid.UUID], decoder_id: uuid.UUID
) -> dict[uuid.UUID, dt.datetime]:
    """Return the samples of canaries that this decoder has already read, with their capture times."""
    query = select(CanaryReading.sample_id, CanaryReading.captured_at).where(
        CanaryReading.decoder_id == decoder_id, CanaryReading.sample_id.in_(sample_ids)
    )
    return {row.sample_id: row.captured_at for row in session.execute(query)}


def store_batch(
    session: Session,
    new: Sequence[NewCanaryReading],
    *,
    model_id: uuid.UUID,
    decoder_id: uuid.UUID,
    verdicts: Verdicts,
) -> frozenset[uuid.UUID]:
    """Insert the readings, and the flags that they raise; return the ids of what is new as explanations.

    A redelivery inserts nothing. What is stored later of a capture has a later `stored_at`, also within a
    batch: as for traffic, calibrated flags look at the positions that were read first. Each capture is
    locked first, as `readings.store_batch` does, and after it where one transaction calls both.
    """
    if not new:
        return frozenset()
    subjects = sorted({_subject(one) for one in new})
    for key in sorted({subject.capture_id.int & (2**63 - 1) for subject in subjects}):
        session.execute(select(func.pg_advisory_xact_lock(key)))
    # The transaction's own time is from before it held the lock, and the same for all rows.
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    rows = [
        _values(one)
        | {
            "model_id": model_id,
            "decoder_id": decoder_id,
            "positions_needed": verdicts.positions_needed,
            "stored_at": now + place * dt.timedelta(microseconds=1),
        }
        for place, one in enumerate(new)
    ]
    statement = insert(CanaryReading).on_conflict_do_nothing().returning(CanaryReading.sample_id)
    stored = session.execute(statement, rows).scalars()
    ids = frozenset(identity.explanation_id(sample, decoder_id) for sample in stored)
    for subject in subjects:
        _store_flags(session, subject, verdicts.decide(_evidence(session, subject, decoder_id)), decoder_id)
    return ids


def _subject(new: NewCanaryReading) -> _Subject:
    sample = new.reading.sample
    if sample.capture_id is None:
        raise ValueError("capture_id: a canary's sample has none")
    return _Subject(sample.capture_id, sample.layer, new.nonce)


def _values(new: NewCanaryReading) -> dict[str, object]:
    reading = new.reading
    sample = reading.sample
    return {
        "sample_id": sample.id,
        "nonce": new.nonce,
        "capture_id": sample.capture_id,
        "layer": sample.layer,
        "position": sample.position,
        "captured_at": sample.captured_at,
        "text": reading.text,
        "fve": reading.fve,
        "verified": reading.verified,
        "concepts": sorted({match.concept for match in reading.matches}),
    }


def _evidence(session: Session, subject: _Subject, decoder_id: uuid.UUID) -> Evidence:
    query = (
        select(
            CanaryReading.concepts,
            CanaryReading.position,
            CanaryReading.captured_at,
            CanaryReading.verified,
        )
        .where(
            CanaryReading.capture_id == subject.capture_id,
            CanaryReading.layer == subject.layer,
            CanaryReading.decoder_id == decoder_id,
        )
        .order_by(CanaryReading.stored_at, CanaryReading.position)
    )
    found = session.execute(query).all()
    verified = [row for row in found if row.verified]
    return Evidence(
        sightings=[
            Sighting(concept, row.position, row.captured_at) for row in verified for concept in row.concepts
        ],
        # The screen has no say in a canary's rows, so all of them count.
        positions_read=[row.position for row in found],
        positions_verified=len({row.position for row in verified}),
    )


def _store_flags(
    session: Session, subject: _Subject, decisions: Iterable[Decision], decoder_id: uuid.UUID
) -> None:
    rows = [
        {
            **subject._asdict(),
            "decoder_id": decoder_id,
            "concept": decided.concept,
            "positions_matched": decided.positions_matched,
            "positions_required": decided.positions_required,
            "status": FlagStatus.LEAD if decided.calibrated is None else FlagStatus.CALIBRATED,
            "rule_is_calibrated": decided.rule_is_calibrated,
        }
        for decided in decisions
    ]
    if rows:
        # The first time counts: whoever waits for a flag has it then. No lead would become calibrated, as
        # for traffic.
        session.execute(insert(CanaryFlag).on_conflict_do_nothing(), rows)
