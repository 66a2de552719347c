"""Flags of a request, counted anew whenever one of its positions was read. The caller commits."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
from service.store.tables import ConceptMatch, Explanation, Flag, Sample


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


class Subject(NamedTuple):
    """What flags are counted on: one request at one layer, as one decoder read it."""

    model_id: uuid.UUID
    decoder_id: uuid.UUID
    request_id: str
    layer: int


def refresh_flags(session: Session, subject: Subject, verdicts: Verdicts) -> list[RaisedFlag]:
    """Count the request's verified positions anew and raise or update its flags; return what was raised.

    The caller holds the request's lock, so that no other worker counts at the same time.
    """
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


def _count_verified(session: Session, subject: Subject) -> int:
    query = (
        select(func.count(Sample.position.distinct()))
        .join(Explanation, Explanation.sample_id == Sample.id)
        .where(*_verified_of(subject))
    )
    return session.execute(query).scalar_one()


def _matched_positions(
    session: Session, subject: Subject
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


def _verified_of(subject: Subject) -> tuple[Any, ...]:
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
