"""What is stored of the explanations to read again: their record, their vector, and their engine."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import identity
from service.store.configuration.tables import ConfigurationContent
from service.store.read import explanations
from service.store.read.explanations import Filter, View
from service.store.tables import Sample
from service.store.vectors import rows
from service.store.vectors.sealing import SealingError, WrappingKey
from subtext_sidecar.contract import record
from workers.reread.compare import Outcome, Recorded, cannot

MOST: Final = 1_000
"""Explanations of one request that are read again."""


class Wanted(NamedTuple):
    """What to read again: exactly one of these is given."""

    sample: uuid.UUID | None = None
    explanation: uuid.UUID | None = None
    request: str | None = None


class Found(NamedTuple):
    """An explanation with the vector that it is of."""

    recorded: Recorded
    vector: NDArray[np.float32]
    token_id: int
    phase: str


def find(session: Session, wanted: Wanted) -> Sequence[View]:
    """Return the explanations that are meant, of the transaction's tenant."""
    if wanted.explanation is not None:
        view = explanations.get_explanation(session, wanted.explanation)
        return [] if view is None else [view]
    if wanted.sample is not None:
        samples = session.scalars(select(Sample).where(Sample.id == wanted.sample)).all()
        return explanations.list_of_samples(session, samples)
    return explanations.list_explanations(session, Filter(request_id=wanted.request), None, MOST).items


def opened(session: Session, view: View, wrapping: WrappingKey) -> Found | Outcome:
    """Return the explanation with its vector, or the outcome that says why there is none."""
    recorded = _recorded(session, view)
    vector = rows.get_vector(session, view.sample.id, view.explanation.captured_at)
    if vector is None:
        return cannot(recorded, "its vector is not in the store: not kept, expired or erased")
    try:
        values = rows.opened(session, vector, wrapping)
    except SealingError as error:
        return cannot(recorded, str(error))
    floats = record.to_float32(values, vector.dtype)
    if floats.shape != (vector.d_model,):
        return cannot(recorded, f"its vector has {len(floats)} values, and {vector.d_model} were sealed")
    return Found(recorded, floats, view.sample.token_id, view.sample.phase)


def capture_of(view: View) -> uuid.UUID:
    """Return what the access log names an explanation's capture by."""
    sample = view.sample
    return identity.capture_name(sample.capture_id, sample.model_id, sample.request_id)


def _recorded(session: Session, view: View) -> Recorded:
    explanation = view.explanation
    return Recorded(
        explanation_id=explanation.id,
        text=explanation.text,
        cosine=explanation.cosine,
        fve=explanation.fve,
        fve_baseline=view.decoder.fve_baseline,
        candidates=explanation.candidates,
        decoder_digest=view.decoder.digest,
        engine=_engine(session, explanation.configuration_id),
    )


def _engine(session: Session, version: int | None) -> Mapping[str, Any] | None:
    held = None if version is None else session.get(ConfigurationContent, version)
    told = None if held is None else held.content.get("engine")
    return told if isinstance(told, dict) and told else None
