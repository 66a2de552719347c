"""Reading the concepts that models are watched for: versions, calibrations, and how often they flagged."""

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, null, select, union_all
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from service.store.configuration import read as configurations
from service.store.configuration.tables import ConfigurationContent, ConfigurationPeriod
from service.store.days import REQUEST_LASTS
from service.store.read.names import is_same_capture
from service.store.tables import ConceptVersion, Flag, Model, ModelConcept, RequestName
from subtext_sidecar.contract.configuration import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Captures from ``start`` (inclusive) to ``end`` (exclusive), of one model or of all."""

    start: dt.datetime
    end: dt.datetime
    model: str | None = None


class Used(NamedTuple):
    """One version of a concept that a model was watched for."""

    model_id: uuid.UUID
    model: str
    name: str
    version: int | None
    digest: str
    used_since: dt.datetime
    definition: dict[str, Any]


class Rate(NamedTuple):
    """How often a rule flags benign requests, as a calibrated flag says."""

    estimate: float
    upper: float
    requests: int
    calibration_digest: str


def list_used(session: Session, model: str | None) -> list[Used]:
    """Return every version by model, concept and when it was used first."""
    query = (
        select(
            Model.id,
            Model.name,
            ModelConcept.name,
            ModelConcept.version,
            ModelConcept.digest,
            ModelConcept.used_since,
            ConceptVersion.definition,
        )
        .join(ModelConcept, ModelConcept.model_id == Model.id)
        .join(ConceptVersion, ConceptVersion.digest == ModelConcept.digest)
        .order_by(Model.name, ModelConcept.name, ModelConcept.used_since, ModelConcept.digest)
    )
    if model is not None:
        query = query.where(Model.name == model)
    return [Used(*row) for row in session.execute(query)]


def list_in_force(session: Session, model: str | None) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return what is in force now by model and kind: contents, of those that are known."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for one in configurations.list_in_force(session, configurations.now(session), model):
        if one.view.content is not None:
            of_model = found.setdefault(one.period.model, {})
            of_model.setdefault(one.period.kind, []).append(one.view.content)
    return found


def list_calibrations(session: Session, model: str | None) -> Iterable[tuple[str, dict[str, Any]]]:
    """Return model and content of every concept calibration that was ever in force, the newest first."""
    row = ConfigurationPeriod
    seen = (
        select(row.model, row.version_id, func.max(row.last_seen_at).label("at"))
        .where(row.kind == Kind.CONCEPT_CALIBRATION)
        .group_by(row.model, row.version_id)
    )
    if model is not None:
        seen = seen.where(row.model == model)
    newest = seen.subquery()
    query = (
        select(newest.c.model, ConfigurationContent.content)
        .join(ConfigurationContent, ConfigurationContent.version_id == newest.c.version_id)
        .order_by(newest.c.at.desc(), newest.c.version_id)
    )
    return [(name, content) for name, content in session.execute(query)]


def list_rates(session: Session) -> dict[tuple[uuid.UUID, str], Rate]:
    """Return the rate of the newest calibrated flag by model and digest of the definition."""
    key = (Flag.model_id, Flag.concept_digest)
    query = (
        select(
            *key,
            Flag.false_positive_rate,
            Flag.false_positive_rate_upper,
            Flag.calibration_requests,
            Flag.calibration_digest,
        )
        .where(Flag.calibration_digest.is_not(None), Flag.concept_digest.is_not(None))
        .ext(distinct_on(*key))
        .order_by(*key, Flag.created_at.desc())
    )
    return {(row[0], str(row[1])): Rate._make(row[2:]) for row in session.execute(query)}


class Counts(NamedTuple):
    """How many captures of a window were read, and flagged."""

    read: dict[uuid.UUID, int]
    """By model."""
    flagged: dict[tuple[uuid.UUID, str], int]
    """By model and digest of the definition: of those that were read."""


def count(session: Session, window: Window) -> Counts:
    """Count the captures of the window of which something was read, and those of them that were flagged.

    A capture is named as soon as one of its readings is stored, and its name goes with the last of them:
    names are a fraction of the readings. It counts where its name stands, at the first sample that was
    stored, whether it is read or flagged: a flag may be of later positions. Both are of one moment, so that
    no share is over one.
    """
    named = (
        select(RequestName.model_id, RequestName.request_id, RequestName.capture_id, RequestName.capture)
        .where(
            RequestName.captured_at >= window.start,
            RequestName.captured_at < window.end,
            # Its own: the others are what its client may have sent besides.
            RequestName.name == RequestName.request_id,
        )
        .distinct()
        .cte("named")
    )
    read = select(named.c.model_id, null().label("digest"), func.count()).group_by(named.c.model_id)
    flagged = (
        select(Flag.model_id, Flag.concept_digest, func.count(named.c.capture.distinct()))
        .join(
            named,
            (named.c.model_id == Flag.model_id)
            & (named.c.request_id == Flag.request_id)
            & is_same_capture(named.c.capture_id, Flag.capture_id),
        )
        .where(
            Flag.concept_digest.is_not(None),
            Flag.first_captured_at >= window.start - REQUEST_LASTS,
            Flag.first_captured_at < window.end + REQUEST_LASTS,
        )
        .group_by(Flag.model_id, Flag.concept_digest)
    )
    counts = Counts({}, {})
    for model, digest, number in session.execute(union_all(read, flagged)):
        if digest is None:
            counts.read[model] = number
        else:
            counts.flagged[model, digest] = number
    return counts
