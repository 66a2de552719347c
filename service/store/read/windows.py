"""Counting the requests that were tested for being anomalies."""

import datetime as dt
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from service.store.tables import AnomalyWindow, Decoder, Model

QUERY: Final = (
    "SQL: SELECT sum(discoveries), sum(requests) FROM anomaly_windows JOIN decoders"
    " ON decoders.id = decoder_id WHERE closed_at >= from AND closed_at < to GROUP BY model_id, fdr"
)
"""What `count_tested` asks, for those who ask the store themselves."""


class Tested(NamedTuple):
    """The requests of one model that were tested at one false discovery rate."""

    model: str
    fdr: float
    requests: int
    discoveries: int


def count_tested(
    session: Session, start: dt.datetime, end: dt.datetime, model: str | None = None
) -> list[Tested]:
    """Return what came out of the windows that were closed from ``start`` (inclusive) to ``end``."""
    query = (
        select(
            Model.name,
            AnomalyWindow.fdr,
            cast(func.sum(AnomalyWindow.requests), BigInteger),
            cast(func.sum(AnomalyWindow.discoveries), BigInteger),
        )
        .join(Decoder, Decoder.id == AnomalyWindow.decoder_id)
        .join(Model, Model.id == Decoder.model_id)
        .where(AnomalyWindow.closed_at >= start, AnomalyWindow.closed_at < end)
        .group_by(Model.name, AnomalyWindow.fdr)
        .order_by(Model.name, AnomalyWindow.fdr)
    )
    if model is not None:
        query = query.where(Model.name == model)
    return [Tested._make(row) for row in session.execute(query)]
