"""Reading the audited models and the decoders that read them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.tables import Decoder, Model


class DecoderView(NamedTuple):
    """One decoder with its card, and its model's name."""

    decoder: Decoder
    model: str


class ModelView(NamedTuple):
    """One model and the layers that some decoder reads."""

    model: Model
    layers: Sequence[int]


def list_models(session: Session) -> list[ModelView]:
    """Return every model by name."""
    layers: dict[object, set[int]] = {}
    for model_id, layer in session.execute(select(Decoder.model_id, Decoder.layer)):
        layers.setdefault(model_id, set()).add(layer)
    models = session.scalars(select(Model).order_by(Model.name))
    return [ModelView(model, sorted(layers.get(model.id, ()))) for model in models]


def list_decoders(session: Session, model: str | None = None) -> list[DecoderView]:
    """Return every decoder, of one model if given, newest first."""
    query = select(Decoder, Model.name).join(Model, Model.id == Decoder.model_id)
    if model is not None:
        query = query.where(Model.name == model)
    rows = session.execute(query.order_by(Decoder.created_at.desc(), Decoder.id))
    return [DecoderView(*row) for row in rows]
