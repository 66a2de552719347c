"""Storing what a worker read: idempotent, and complete within the caller's one transaction.

The caller commits. Every id is derived from what it identifies, so a second delivery of the same
batch, by this worker or another, inserts nothing.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
from service.store.tables import ConceptMatch, Explanation, Sample
from service.store.write.evidence import Verdicts
from service.store.write.flags import RaisedFlag, Subject, refresh_flags


class NewMatch(NamedTuple):
    """A concept that an explanation matched."""

    concept: str
    matcher: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReading:
    """One sample and what the decoder said about it."""

    sample_id: uuid.UUID
    request_id: str
    layer: int
    position: int
    token_id: int
    token_text: str
    phase: str
    norm: float
    stratum: str
    inclusion_probability: float
    baseline_probability: float
    reason: str
    screen_scores: Mapping[str, float]
    captured_at: dt.datetime
    text: str
    well_formed: bool
    cosine: float
    fve: float
    fve_beyond_token: float | None
    position_class: str
    verified: bool
    claims: Mapping[str, Any] | None
    """JSON: what the decoder says in parts; see the keys in `service.readings`."""
    candidates: int
    margin: float | None
    anomaly_score: float | None
    anomaly_p_value: float | None
    anomaly_calibration_n: int | None
    matches: Sequence[NewMatch]


class StoredBatch(NamedTuple):
    """What was new."""

    explanation_ids: frozenset[uuid.UUID]
    flags: list[RaisedFlag]


def list_known_explanations(
    session: Session, sample_ids: Sequence[uuid.UUID], decoder_id: uuid.UUID
) -> dict[uuid.UUID, dt.datetime]:
    """Return those of the samples that this decoder has explained already, with their capture's time."""
    query = select(Explanation.sample_id, Explanation.captured_at).where(
        Explanation.decoder_id == decoder_id, Explanation.sample_id.in_(sample_ids)
    )
    return {row.sample_id: row.captured_at for row in session.execute(query)}


def store_batch(
    session: Session,
    readings: Sequence[NewReading],
    *,
    model_id: uuid.UUID,
    decoder_id: uuid.UUID,
    verdicts: Verdicts,
) -> StoredBatch:
    """Insert the readings and bring the flags of their requests up to date.

    1. Samples, then explanations, then concept matches, each ON CONFLICT DO NOTHING.
    2. For each request with a new explanation, recount its verified positions and raise or update
       its flags. Requests are locked in order, so that two workers with positions of the same
       request count one after the other and neither misses the other's.
    """
    if not readings:
        return StoredBatch(frozenset(), [])
    requests = sorted({(reading.request_id, reading.layer) for reading in readings})
    _lock_requests(session, model_id, requests)
    session.execute(insert(Sample).on_conflict_do_nothing(), [_sample(model_id, new) for new in readings])
    new_ids = _insert_explanations(session, readings, decoder_id)
    _insert_matches(session, readings, decoder_id, new_ids)
    flags = [
        flag
        for request_id, layer in requests
        for flag in refresh_flags(session, Subject(model_id, decoder_id, request_id, layer), verdicts)
    ]
    return StoredBatch(new_ids, flags)


def _lock_requests(session: Session, model_id: uuid.UUID, requests: Sequence[tuple[str, int]]) -> None:
    # Ordered keys, so that two workers cannot wait for each other.
    keys = sorted({identity.model_id(f"{model_id}/{request}").int & (2**63 - 1) for request, _ in requests})
    for key in keys:
        session.execute(select(func.pg_advisory_xact_lock(key)))


def _sample(model_id: uuid.UUID, new: NewReading) -> dict[str, Any]:
    return {
        "id": new.sample_id,
        "model_id": model_id,
        "request_id": new.request_id,
        "layer": new.layer,
        "position": new.position,
        "token_id": new.token_id,
        "token_text": new.token_text,
        "phase": new.phase,
        "norm": new.norm,
        "stratum": new.stratum,
        "inclusion_probability": new.inclusion_probability,
        "baseline_probability": new.baseline_probability,
        "reason": new.reason,
        "screen_scores": dict(new.screen_scores),
        "captured_at": new.captured_at,
    }


def _insert_explanations(
    session: Session, readings: Sequence[NewReading], decoder_id: uuid.UUID
) -> frozenset[uuid.UUID]:
    rows = [
        {
            "id": identity.explanation_id(new.sample_id, decoder_id),
            "sample_id": new.sample_id,
            "decoder_id": decoder_id,
            "captured_at": new.captured_at,
            "text": new.text,
            "well_formed": new.well_formed,
            "cosine": new.cosine,
            "fve": new.fve,
            "fve_beyond_token": new.fve_beyond_token,
            "position_class": new.position_class,
            "verified": new.verified,
            "claims": None if new.claims is None else dict(new.claims),
            "candidates": new.candidates,
            "margin": new.margin,
            "anomaly_score": new.anomaly_score,
            "anomaly_p_value": new.anomaly_p_value,
            "anomaly_calibration_n": new.anomaly_calibration_n,
        }
        for new in readings
    ]
    statement = insert(Explanation).on_conflict_do_nothing().returning(Explanation.id)
    return frozenset(session.execute(statement, rows).scalars())


def _insert_matches(
    session: Session,
    readings: Sequence[NewReading],
    decoder_id: uuid.UUID,
    new_ids: frozenset[uuid.UUID],
) -> None:
    rows = [
        {"explanation_id": explanation_id, **match._asdict()}
        for new in readings
        for match in new.matches
        if (explanation_id := identity.explanation_id(new.sample_id, decoder_id)) in new_ids
    ]
    if rows:
        session.execute(insert(ConceptMatch).on_conflict_do_nothing(), rows)
