"""The sampled positions of one capture in order, each with the figures of its readings, without texts."""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import DateTime, func, select
from sqlalchemy.orm import Session

from service.store.days import between, near
from service.store.tables import ConceptMatch, Decoder, Explanation, Model, Sample


class Reading(NamedTuple):
    """The figures of one explanation."""

    id: uuid.UUID
    decoder_id: uuid.UUID
    verified: bool
    cosine: float
    fve: float
    fve_beyond_token: float | None
    position_class: str
    anomaly_score: float | None
    anomaly_p_value: float | None
    shuffled_fve_p95: float
    verified_above: dict[str, float] | None
    """The decoder's thresholds by position class."""
    concepts: Sequence[str]


class SampledPosition(NamedTuple):
    """One position and what was read there, by each decoder."""

    sample: Sample
    readings: Sequence[Reading]


class Layer(NamedTuple):
    """How many positions of the capture were sampled at a layer."""

    layer: int
    positions: int


class View(NamedTuple):
    """One page of a capture's positions at one layer."""

    layer: int
    layers: Sequence[Layer]
    items: Sequence[SampledPosition]
    next_after: int | None


class Asked(NamedTuple):
    """Which page of which capture."""

    capture_id: uuid.UUID
    model: str
    layer: int | None
    """None: the lowest that was sampled."""
    after: int
    """Positions behind this one."""
    limit: int


def list_of_capture(session: Session, asked: Asked) -> View | None:
    """Return the page; None when nothing of the capture is stored."""
    model_id = select(Model.id).where(Model.name == asked.model).scalar_subquery()
    # Of any day, by a plan that stays in the database, see decision 28.
    time = func.subtext_time_of_capture(asked.capture_id, model_id, type_=DateTime(timezone=True))
    at = session.scalar(select(time.column_valued()))
    if at is None:
        return None
    of_capture = (
        Sample.capture_id == asked.capture_id,
        Sample.model_id == model_id,
        near(Sample.captured_at, at),
    )
    counted = (
        select(Sample.layer, func.count(), func.min(Sample.captured_at), func.max(Sample.captured_at))
        .where(*of_capture)
        .group_by(Sample.layer)
        .order_by(Sample.layer)
    )
    found = {row[0]: row for row in session.execute(counted)}
    layers = [Layer(row[0], row[1]) for row in found.values()]
    chosen = layers[0].layer if asked.layer is None else asked.layer
    if chosen not in found:
        return View(chosen, layers, [], None)
    query = (
        select(Sample)
        .where(*of_capture, Sample.layer == chosen, Sample.position > asked.after)
        .where(between(Sample.captured_at, *found[chosen][2:]))
        .order_by(Sample.position)
        .limit(asked.limit + 1)
    )
    samples = session.scalars(query).all()
    page = samples[: asked.limit]
    readings = _readings_of(session, page)
    return View(
        chosen,
        layers,
        [SampledPosition(sample, readings[sample.id]) for sample in page],
        page[-1].position if len(samples) > asked.limit else None,
    )


def _readings_of(session: Session, samples: Sequence[Sample]) -> defaultdict[uuid.UUID, list[Reading]]:
    readings: defaultdict[uuid.UUID, list[Reading]] = defaultdict(list)
    if not samples:
        return readings
    times = [sample.captured_at for sample in samples]
    query = (
        select(
            Explanation.sample_id,
            Explanation.captured_at,
            Explanation.id,
            Explanation.decoder_id,
            Explanation.verified,
            Explanation.cosine,
            Explanation.fve,
            Explanation.fve_beyond_token,
            Explanation.position_class,
            Explanation.anomaly_score,
            Explanation.anomaly_p_value,
            Decoder.shuffled_fve_p95,
            Decoder.verified_above,
        )
        .join(Decoder, Decoder.id == Explanation.decoder_id)
        .where(
            Explanation.sample_id.in_([sample.id for sample in samples]),
            near(Explanation.captured_at, min(times), max(times)),
        )
        .order_by(Explanation.created_at, Explanation.id)
    )
    rows: Sequence[Any] = session.execute(query).all()
    concepts = _concepts_of(session, rows)
    for row in rows:
        readings[row.sample_id].append(Reading._make((*row[2:], concepts[row.id])))
    return readings


def _concepts_of(session: Session, rows: Sequence[Any]) -> defaultdict[uuid.UUID, list[str]]:
    concepts: defaultdict[uuid.UUID, list[str]] = defaultdict(list)
    if rows:
        times = [row.captured_at for row in rows]
        query = select(ConceptMatch.explanation_id, ConceptMatch.concept).where(
            ConceptMatch.explanation_id.in_([row.id for row in rows]),
            between(ConceptMatch.captured_at, min(times), max(times)),
        )
        for identity, concept in session.execute(query.order_by(ConceptMatch.concept).distinct()):
            concepts[identity].append(concept)
    return concepts
