"""Readings of requests that their operator knows to be benign, as the flag rule would look at them."""

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.days import is_sample_of_explanation, near
from service.store.tables import Decoder, Explanation, Model, Sample
from subtext_sidecar.contract.counters import Stratum

_ROWS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which readings: those of one decoder, captured in the span."""

    decoder_id: uuid.UUID
    captured_after: dt.datetime
    """At or after."""
    captured_before: dt.datetime


class ReadPosition(NamedTuple):
    """What was read at one position of a capture."""

    explanation_id: uuid.UUID
    capture_id: uuid.UUID
    position: int
    captured_at: dt.datetime
    text: str
    verified: bool
    claims: dict[str, Any] | None
    baseline_probability: float


def list_decoders(session: Session, model: str, layer: int) -> list[Decoder]:
    """Return the decoders of the model's layer."""
    query = select(Decoder).join(Model).where(Model.name == model, Decoder.layer == layer)
    return list(session.scalars(query.order_by(Decoder.digest)))


def iterate_readings(session: Session, wanted: Wanted) -> Iterator[ReadPosition]:
    """Yield the readings capture by capture, each in the order in which they were stored.

    Of a capture nothing follows a position that only the screen chose, as for the flag rule. Only the
    uniform stratum counts: what a client asked to have read is no sample of the traffic.
    """
    query = (
        select(
            Explanation.id,
            Sample.capture_id,
            Sample.position,
            Sample.captured_at,
            Explanation.text,
            Explanation.verified,
            Explanation.claims,
            Sample.baseline_probability,
        )
        .join(Explanation, is_sample_of_explanation())
        .where(
            Explanation.decoder_id == wanted.decoder_id,
            Explanation.captured_at >= wanted.captured_after,
            Explanation.captured_at < wanted.captured_before,
            near(Sample.captured_at, wanted.captured_after, wanted.captured_before),
            Sample.capture_id.is_not(None),
            Sample.stratum == Stratum.UNIFORM,
        )
        .order_by(Sample.capture_id, Explanation.created_at, Sample.position)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    rows = (ReadPosition(*row) for row in session.execute(query))
    for _, of_capture in groupby(rows, attrgetter("capture_id")):
        yield from takewhile(lambda row: row.baseline_probability > 0, of_capture)
