"""Counting what triage said of flags: the parts that measured precision is worked out of."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from service.incidents.lifecycle import CLOSED
from service.store.read.incidents import is_flag_of_incident
from service.store.tables import Decoder, Flag, Incident, Model

WATCHED_WITHIN: Final = dt.timedelta(days=30)
"""Of flags that were raised earlier, the metrics count no labels: traffic and concepts change."""

_Query = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which flags to count; None means any. A flag spans its first to its last matching capture."""

    model: str | None = None
    concept: str | None = None
    captured_after: dt.datetime | None = None  # the span ends at or after this
    captured_before: dt.datetime | None = None  # the span begins before this


class Counts(NamedTuple):
    """The flags of one concept, as one decoder raised them under one file of concepts."""

    model: str
    layer: int
    concept: str
    severity: str
    decoder_id: uuid.UUID
    decoder_name: str
    decoder_digest: str
    concepts_digest: str
    raised: int
    calibrated: int
    """Those with a measured false-positive rate."""
    confirmed: int
    dismissed: int
    open: int
    """Their incident is open or acknowledged."""
    without_incident: int
    """Raised before there were incidents."""
    last_raised_at: dt.datetime

    @property
    def closed_without_label(self) -> int:
        """Those whose incident was closed without saying whether the flag was right."""
        return self.raised - self.confirmed - self.dismissed - self.open - self.without_incident


def count(session: Session, wanted: Filter) -> list[Counts]:
    """Return the counts by model, layer, concept, severity, decoder and concepts, newest raised last."""
    label = Incident.labels[Flag.concept].as_boolean()
    columns = (
        Model.name,
        Flag.layer,
        Flag.concept,
        Flag.severity,
        Flag.decoder_id,
        Decoder.name,
        Decoder.digest,
        Flag.concepts_digest,
    )
    last = func.max(Flag.created_at).label("last_raised_at")
    query = (
        select(
            *columns,
            func.count(),
            func.count(Flag.false_positive_rate),
            _count(label.is_(True)),
            _count(label.is_(False)),
            _count(label.is_(None) & Incident.state.not_in(CLOSED)),
            _count(Incident.id.is_(None)),
            last,
        )
        .join(Model, Model.id == Flag.model_id)
        .join(Decoder, Decoder.id == Flag.decoder_id)
        .outerjoin(Incident, is_flag_of_incident())
        .group_by(*columns)
        .order_by(Model.name, Flag.layer, Flag.concept, last, Flag.severity, Flag.decoder_id)
    )
    return [Counts._make(row) for row in session.execute(_narrowed(query, wanted))]


class Rate(NamedTuple):
    """How often a detector's rule flags benign requests, as its newest calibrated flag says."""

    estimate: float
    upper: float  # one-sided 95%
    requests: int
    calibration_digest: str


def list_rates(session: Session, wanted: Filter) -> dict[tuple[Any, ...], Rate]:
    """Return the rates by model, layer, concept, decoder and concepts, of those with a calibrated flag."""
    key = (Model.name, Flag.layer, Flag.concept, Flag.decoder_id, Flag.concepts_digest)
    query = (
        select(
            *key,
            Flag.false_positive_rate,
            Flag.false_positive_rate_upper,
            Flag.calibration_requests,
            Flag.calibration_digest,
        )
        .join(Model, Model.id == Flag.model_id)
        .where(Flag.calibration_digest.is_not(None), Flag.false_positive_rate_upper.is_not(None))
        .ext(distinct_on(*key))
        .order_by(*key, Flag.created_at.desc())
    )
    rows = session.execute(_narrowed(query, wanted))
    return {tuple(row[:5]): Rate._make(row[5:]) for row in rows}


def _narrowed(query: _Query, wanted: Filter) -> _Query:
    equal = ((Model.name, wanted.model), (Flag.concept, wanted.concept))
    query = query.where(*(column == value for column, value in equal if value is not None))
    if wanted.captured_after is not None:
        query = query.where(Flag.last_captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        query = query.where(Flag.first_captured_at < wanted.captured_before)
    return query


class Labels(NamedTuple):
    """What triage said of the flags that one detector raised of late."""

    raised: int
    confirmed: int
    dismissed: int


class _Detector(NamedTuple):
    model_id: uuid.UUID
    layer: int
    concept: str
    decoder_id: uuid.UUID
    concepts_digest: str
    severity: str


class Watched(NamedTuple):
    """What has one precision: a model's concept at one layer, by the detector that raised it last."""

    model: str
    layer: int
    concept: str


def count_watched(session: Session) -> dict[Watched, Labels]:
    """Return the labels of the flags within `WATCHED_WITHIN`, of the last detector of each concept.

    Flags and labels are counted apart: the first need no join, and the second are as few as people make.
    """
    names = dict(session.execute(select(Model.id, Model.name)).all())
    columns = [getattr(Flag, name) for name in _Detector._fields]
    is_late = Flag.created_at > func.now() - WATCHED_WITHIN
    raised = (
        select(*columns, func.count())
        .where(is_late)
        .group_by(*columns)
        .order_by(func.max(Flag.created_at), *columns)
    )
    label = Incident.labels[Flag.concept].as_boolean()
    labelled = (
        select(*columns, _count(label.is_(True)), _count(label.is_(False)))
        .select_from(Incident)
        .join(Flag, is_flag_of_incident())
        # An incident is opened with its first flag, so one of an earlier day has none of these.
        .where(
            is_late,
            Incident.state.in_(CLOSED),
            Incident.opened_at > func.now() - WATCHED_WITHIN - dt.timedelta(days=1),
        )
        .group_by(*columns)
    )
    labels = {_Detector(*row[:-2]): (row[-2], row[-1]) for row in session.execute(labelled)}
    found = {}
    for *key, number in session.execute(raised):  # the last raised overwrites those before
        detector = _Detector(*key)
        watched = Watched(names[detector.model_id], detector.layer, detector.concept)
        found[watched] = Labels(number, *labels.get(detector, (0, 0)))
    return found


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)
