"""Storing what a worker read: idempotent, and complete within the caller's one transaction.

The caller commits. Every id is derived from what it identifies, so a second delivery of the same
batch, by this worker or another, inserts nothing.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
from service.store.tables import ConceptMatch, Decoder, Explanation, Flag, Model, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecoder:
    """A decoder as its worker knows it."""

    model: str  # served model name
    d_model: int
    name: str
    digest: str
    layer: int
    fve_baseline: float
    shuffled_fve_p95: float
    calibration_n: int
    card: Mapping[str, Any]
    verified_above: Mapping[str, float] = field(default_factory=dict)
    """By position class; empty for a decoder that does not tell classes apart."""
    candidates: int = 1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRule:
    """When matches become a flag."""

    severity: str
    positions_required: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What flags are judged by: the concepts in force and how their thresholds were set."""

    concepts_digest: str
    rules: Mapping[str, FlagRule]  # by concept
    false_positive_rate: float | None


class RaisedFlag(NamedTuple):
    """A flag that this transaction raised for the first time."""

    concept: str
    severity: str


class StoredBatch(NamedTuple):
    """What was new."""

    explanation_ids: frozenset[uuid.UUID]
    flags: list[RaisedFlag]


def register_decoder(session: Session, decoder: NewDecoder) -> tuple[uuid.UUID, uuid.UUID]:
    """Insert model and decoder unless known; return (model id, decoder id).

    A known decoder keeps its row, but for what only a newer worker could tell. Raises ValueError when
    the model is known with another d_model: it is not the same model.
    """
    model_id = identity.model_id(decoder.model)
    decoder_id = identity.decoder_id(decoder.digest)
    model_row = {"id": model_id, "name": decoder.model, "d_model": decoder.d_model}
    session.execute(insert(Model).values(model_row).on_conflict_do_nothing())
    known = session.execute(select(Model.d_model).where(Model.id == model_id)).scalar_one()
    if known != decoder.d_model:
        raise ValueError(
            f"model {decoder.model!r} is stored with d_model {known}, this decoder has {decoder.d_model};"
            " serve the new model under another name"
        )
    row = {
        "id": decoder_id,
        "model_id": model_id,
        "name": decoder.name,
        "digest": decoder.digest,
        "layer": decoder.layer,
        "fve_baseline": decoder.fve_baseline,
        "shuffled_fve_p95": decoder.shuffled_fve_p95,
        "calibration_n": decoder.calibration_n,
        "card": dict(decoder.card),
        "verified_above": dict(decoder.verified_above) or None,
        "candidates": decoder.candidates,
    }
    insertion = insert(Decoder).values(row)
    told = {
        "verified_above": func.coalesce(insertion.excluded.verified_above, Decoder.verified_above),
        "candidates": insertion.excluded.candidates,
    }
    session.execute(insertion.on_conflict_do_update(index_elements=["digest"], set_=told))
    return model_id, decoder_id


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
        for flag in _refresh_flags(session, _Subject(model_id, decoder_id, request_id, layer), verdicts)
    ]
    return StoredBatch(new_ids, flags)


class _Subject(NamedTuple):
    model_id: uuid.UUID
    decoder_id: uuid.UUID
    request_id: str
    layer: int


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


def _refresh_flags(session: Session, subject: _Subject, verdicts: Verdicts) -> list[RaisedFlag]:
    raised = []
    verified = _count_verified(session, subject)
    for concept, positions, first, last in _matched_positions(session, subject):
        rule = verdicts.rules.get(concept)
        if rule is None or positions < rule.positions_required:
            continue
        row = {
            "id": identity.flag_id(
                subject.model_id, subject.request_id, subject.layer, concept, subject.decoder_id
            ),
            "model_id": subject.model_id,
            "decoder_id": subject.decoder_id,
            "request_id": subject.request_id,
            "layer": subject.layer,
            "concept": concept,
            "concepts_digest": verdicts.concepts_digest,
            "severity": rule.severity,
            "positions_matched": positions,
            "positions_required": rule.positions_required,
            "positions_verified": verified,
            "false_positive_rate": verdicts.false_positive_rate,
            "first_captured_at": first,
            "last_captured_at": last,
        }
        if _upsert_flag(session, row):
            raised.append(RaisedFlag(concept, rule.severity))
    return raised


def _count_verified(session: Session, subject: _Subject) -> int:
    query = (
        select(func.count(Sample.position.distinct()))
        .join(Explanation, Explanation.sample_id == Sample.id)
        .where(*_verified_of(subject))
    )
    return session.execute(query).scalar_one()


def _matched_positions(
    session: Session, subject: _Subject
) -> list[tuple[str, int, dt.datetime, dt.datetime]]:
    query = (
        select(
            ConceptMatch.concept,
            func.count(Sample.position.distinct()),
            func.min(Sample.captured_at),
            func.max(Sample.captured_at),
        )
        .join(Explanation, Explanation.id == ConceptMatch.explanation_id)
        .join(Sample, Sample.id == Explanation.sample_id)
        .where(*_verified_of(subject))
        .group_by(ConceptMatch.concept)
        .order_by(ConceptMatch.concept)
    )
    return [(concept, count, first, last) for concept, count, first, last in session.execute(query)]


def _verified_of(subject: _Subject) -> tuple[Any, ...]:
    return (
        Sample.model_id == subject.model_id,
        Sample.request_id == subject.request_id,
        Sample.layer == subject.layer,
        Explanation.decoder_id == subject.decoder_id,
        Explanation.verified,
    )


def _upsert_flag(session: Session, row: dict[str, Any]) -> bool:
    """Insert or update; tell whether it was new."""
    new = insert(Flag).values(row).on_conflict_do_nothing().returning(Flag.id)
    if session.execute(new).scalar_one_or_none() is not None:
        return True
    # Severity, rule and digest stay as they were when the flag was raised: that is its record.
    changes = {
        name: row[name]
        for name in ("positions_matched", "positions_verified", "first_captured_at", "last_captured_at")
    }
    session.execute(update(Flag).where(Flag.id == row["id"]).values(changes | {"updated_at": func.now()}))
    return False
