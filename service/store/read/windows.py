"""Counting the requests that were tested for being anomalies."""

import datetime as dt
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.orm import Session

from service.store.tables import AnomalyWindow, Decoder, Model

_QUERY: Final = (
    "SQL: SELECT decoders.name, digest, fdr, sum(discoveries), sum(requests) FROM anomaly_windows"
    " JOIN decoders ON decoders.id = decoder_id JOIN models ON models.id = model_id"
    " WHERE closed_at >= '{start}' AND closed_at < '{end}' AND models.name = '{model}' GROUP BY 1, 2, 3"
)


class Tested(NamedTuple):
    """The requests of one model that one decoder's reference tested at one false discovery rate.

    A request that is read at several layers is tested once at each, so sums over decoders count it twice.
    """

    model: str
    decoder: str
    digest: str
    fdr: float
    requests: int
    discoveries: int


def query(start: dt.datetime, end: dt.datetime, model: str) -> str:
    """Return what `count_tested` asks of a model, for those who ask the store themselves."""
    return _QUERY.format(start=start.isoformat(), end=end.isoformat(), model=model.replace("'", "''"))


def count_tested(
    session: Session, start: dt.datetime, end: dt.datetime, model: str | None = None
) -> list[Tested]:
    """Return what came out of the windows that were closed from ``start`` (inclusive) to ``end``."""
    query = (
        select(
            Model.name,
            Decoder.name,
            Decoder.digest,
            AnomalyWindow.fdr,
            cast(func.sum(AnomalyWindow.requests), BigInteger),
            cast(func.sum(AnomalyWindow.discoveries), BigInteger),
        )
        .join(Decoder, Decoder.id == AnomalyWindow.decoder_id)
        .join(Model, Model.id == Decoder.model_id)
        .where(AnomalyWindow.closed_at >= start, AnomalyWindow.closed_at < end)
        .group_by(Model.name, Decoder.name, Decoder.digest, AnomalyWindow.fdr)
        .order_by(Model.name, Decoder.name, Decoder.digest, AnomalyWindow.fdr)
    )
    if model is not None:
        query = query.where(Model.name == model)
    return [Tested._make(row) for row in session.execute(query)]
