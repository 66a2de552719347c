"""What prevalence is estimated from: judged requests of the random baseline, grouped, and losses by minute.

Everything is aggregated by PostgreSQL: what comes out is bounded by requests, and by minutes.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, ColumnElement, Subquery, Text, and_, case, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import Session

from service.prevalence.retained import MinuteRows
from service.prevalence.statement import RequestGroup
from service.store.days import is_match_of_explanation, is_sample_of_explanation, near
from service.store.read.names import is_same_capture
from service.store.tables import (
    ConceptMatch,
    CoverageMinute,
    Decoder,
    Explanation,
    Flag,
    FlagStatus,
    Model,
    Sample,
)
from subtext_sidecar.contract.counters import (
    LossKind,
    PluginCounter,
    SidecarCounter,
    Stratum,
    WorkerCounter,
)

_IS_TRAFFIC: Final = CoverageMinute.stratum != Stratum.CANARY
_LEFT_OUT: Final = (SidecarCounter.THINNED, PluginCounter.DROPPED_AFTER_END)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Captures of one model from ``start`` (inclusive) to ``end`` (exclusive)."""

    model: Model
    start: dt.datetime
    end: dt.datetime


def find_model(session: Session, name: str) -> Model | None:
    """Return the model that is served under this name."""
    return session.scalars(select(Model).where(Model.name == name)).one_or_none()


def list_models(session: Session) -> Sequence[Model]:
    """Return every model by name."""
    return session.scalars(select(Model).order_by(Model.name)).all()


def list_decoders(session: Session, window: Window) -> dict[uuid.UUID, Decoder]:
    """Return the model's decoders by id."""
    found = session.scalars(select(Decoder).where(Decoder.model_id == window.model.id))
    return {decoder.id: decoder for decoder in found}


def is_known(session: Session, window: Window, concept: str) -> bool:
    """Tell whether any explanation of the model ever matched the concept, in the window or not."""
    match = (
        select(ConceptMatch.explanation_id)
        .join(Explanation, is_match_of_explanation())
        .join(Decoder, Decoder.id == Explanation.decoder_id)
        .where(ConceptMatch.concept == concept, Decoder.model_id == window.model.id)
        .limit(1)
    )
    return session.execute(match).first() is not None


def list_flagged(session: Session, window: Window, concept: str | None = None) -> dict[str, int]:
    """Return, by concept that was flagged in the window, how many of its flags have no known rate.

    ``concept`` leaves out every other.
    """
    uncalibrated = func.count().filter(Flag.false_positive_rate.is_(None))
    query = select(Flag.concept, uncalibrated).where(*_of_window(window)).group_by(Flag.concept)
    if concept is not None:
        query = query.where(Flag.concept == concept)
    return dict(session.execute(query).all())


def list_groups(
    session: Session,
    window: Window,
    concepts: Collection[str] | None = None,
    status: FlagStatus | None = None,
) -> list[RequestGroup]:
    """Return the requests with at least one row of the random baseline, alike ones as one group.

    ``concepts`` and ``status`` leave out flags of any other.
    """
    judged, flagged = _judged(window), _flagged(window, concepts, status)
    start = func.date_trunc("minute", judged.c.first, "UTC").label("start")
    keys = (judged.c.decoder_id, judged.c.layer, start, judged.c.stratum, judged.c.probability)
    found = func.coalesce(flagged.c.concepts, cast([], ARRAY(Text))).label("found")
    is_same = and_(
        flagged.c.request_id == judged.c.request_id,
        flagged.c.decoder_id == judged.c.decoder_id,
        flagged.c.layer == judged.c.layer,
        is_same_capture(flagged.c.capture_id, judged.c.capture_id),
    )
    query = (
        select(
            *keys,
            func.count(),
            func.count().filter(judged.c.is_verified),
            cast(func.sum(judged.c.rows), BigInteger),
            found,
        )
        .select_from(judged.outerjoin(flagged, is_same))
        .group_by(*keys, found)
    )
    with _hashing(session):
        return [RequestGroup(*row) for row in session.execute(query)]


@contextmanager
def _hashing(session: Session) -> Iterator[None]:
    """Let PostgreSQL group and join by hash inside the block.

    Of rows that a policy filters by tenant it expects one, and would sort every reading of the range by its
    request's id, on disk, and then compare each judged request with each flagged one.
    """
    names = ("enable_sort", "enable_mergejoin")
    session.execute(select(*(func.set_config(name, "off", True) for name in names)))  # noqa: FBT003
    yield
    # Not where it raised: then the transaction takes the settings with it.
    session.execute(select(*(func.set_config(name, "on", True) for name in names)))  # noqa: FBT003


def list_minutes(session: Session, window: Window) -> list[MinuteRows]:
    """Return by minute and stratum how many rows should have arrived, and how many were lost."""
    counter, count = CoverageMinute.counter, CoverageMinute.count
    is_loss = or_(*(counter.startswith(f"{kind}_", autoescape=True) for kind in _KINDS))
    due = case((counter == PluginCounter.ROWS_SAMPLED, count), (counter.in_(_LEFT_OUT), -count), else_=0)
    # A trimmed row that a worker was reading is no loss.
    lost = case(
        (counter == WorkerCounter.ROWS_TRIMMED_BUT_READ, -count),
        (counter.in_(_LEFT_OUT), 0),
        (is_loss, count),
        else_=0,
    )
    query = (
        select(
            CoverageMinute.minute,
            CoverageMinute.stratum,
            cast(func.sum(due), BigInteger),
            cast(func.sum(lost), BigInteger),
        )
        .where(*_minutes_of(window), _IS_TRAFFIC)
        .group_by(CoverageMinute.minute, CoverageMinute.stratum)
    )
    return [MinuteRows(*row) for row in session.execute(query)]


_KINDS: Final = (LossKind.DROPPED, LossKind.DEAD_LETTERED)


def count_seen(session: Session, window: Window) -> dict[str, int]:
    """Return the requests that reached the model in the window's minutes, by stratum."""
    query = (
        select(CoverageMinute.stratum, cast(func.sum(CoverageMinute.count), BigInteger))
        .where(*_minutes_of(window), _IS_TRAFFIC, CoverageMinute.counter == PluginCounter.REQUESTS_SEEN)
        .group_by(CoverageMinute.stratum)
    )
    return dict(session.execute(query).all())


def _minutes_of(window: Window) -> tuple[ColumnElement[bool], ...]:
    start = window.start.replace(second=0, microsecond=0)
    return (
        CoverageMinute.model == window.model.name,
        CoverageMinute.minute >= start,
        CoverageMinute.minute < window.end,
    )


def _judged(window: Window) -> Subquery:
    """Return one row a request, decoder and layer."""
    unit = (Explanation.decoder_id, Sample.layer, Sample.capture_id, Sample.request_id)
    return (
        select(
            *unit,
            func.min(Sample.captured_at).label("first"),
            func.min(Sample.stratum).label("stratum"),
            func.max(Sample.baseline_probability).label("probability"),
            func.count().label("rows"),
            func.bool_or(Explanation.verified).label("is_verified"),
        )
        .join(Sample, is_sample_of_explanation())
        .where(
            Explanation.captured_at >= window.start,
            Explanation.captured_at < window.end,
            near(Sample.captured_at, window.start, window.end),
            Sample.model_id == window.model.id,
            Sample.baseline_probability > 0,
        )
        .group_by(*unit)
        .subquery()
    )


def _flagged(window: Window, concepts: Collection[str] | None, status: FlagStatus | None) -> Subquery:
    """Return one row a flagged request, decoder and layer, with its concepts."""
    unit = (Flag.decoder_id, Flag.layer, Flag.capture_id, Flag.request_id)
    names = func.array_agg(aggregate_order_by(Flag.concept, Flag.concept)).label("concepts")
    query = select(*unit, names).where(*_of_window(window)).group_by(*unit)
    if concepts is not None:
        query = query.where(Flag.concept.in_(list(concepts)))
    return (query if status is None else query.where(Flag.status == status)).subquery()


def _of_window(window: Window) -> tuple[ColumnElement[bool], ...]:
    return (
        Flag.model_id == window.model.id,
        Flag.last_captured_at >= window.start,
        Flag.first_captured_at < window.end,
    )
