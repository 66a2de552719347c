"""Making a decoder and its model known to the store. The caller commits."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store import identity
from service.store.tables import Decoder, Model


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
