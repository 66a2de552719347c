"""Reading flags: concepts found on requests at enough verified positions."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, select, text, true
from sqlalchemy.orm import Session, aliased, defer

from service.store.days import REQUEST_LASTS, between, earlier, is_match_of_explanation, later
from service.store.read import names
from service.store.read.page import Page, Position, older_than
from service.store.tables import (
    ConceptMatch,
    Decoder,
    Explanation,
    Flag,
    Model,
    RequestName,
    Sample,
)

_LOOKED_INTO_OF_PAGE: Final = 300
"""Flags, of which some do not have the wanted fidelity: after so many a page ends as it is."""
# Of another time than their samples' there are readings only where there were no days yet, see `days`.
_DAYS_BEGIN: Final = text(r"""
    SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''([^'']+)''\)')::timestamptz
    FROM pg_class WHERE oid = to_regclass('explanations_before')
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which flags to list; None means any. A flag spans its first to its last matching capture."""

    model: str | None = None
    request_id: str | None = None  # any id that its client may have sent
    concept: str | None = None
    severity: str | None = None
    captured_after: dt.datetime | None = None  # the span ends at or after this
    captured_before: dt.datetime | None = None  # the span begins before this
    min_fve: float | None = None  # enough of its positions have at least this fidelity
    min_cosine: float | None = None


class View(NamedTuple):
    """One flag with its decoder (``card`` not loaded) and its model's name."""

    flag: Flag
    decoder: Decoder
    model: str


_Query = Select[Flag, Decoder, str]


def list_flags(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[View]:
    """Return one page, newest raised first.

    The order is that of ``created_at``: ``last_captured_at`` grows while a reader pages, which
    would make rows jump over it.

    By fidelity a page may have fewer flags than it has room for, or none, and a next one: how many it looks
    into is bounded, however few have what is wanted.
    """
    model_id = None
    if wanted.model is not None:
        model_id = session.scalar(select(Model.id).where(Model.name == wanted.model))
        if model_id is None:
            return Page([], None)
    query = _narrowed(select(Flag), wanted, model_id).order_by(Flag.created_at.desc(), Flag.id.desc())
    has_fidelity = wanted.min_fve is not None or wanted.min_cosine is not None
    views: list[View] = []
    at_once, looked_into = limit + 1, 0
    while True:
        part = query if after is None else query.where(older_than(Flag.created_at, Flag.id, after))
        found = [View(*row) for row in session.execute(_of_page(part.limit(at_once)))]
        views += _faithful(session, wanted, found) if has_fidelity else found
        if len(found) < at_once or len(views) > limit:
            break
        after = Position(found[-1].flag.created_at, found[-1].flag.id)
        looked_into += len(found)
        if looked_into >= _LOOKED_INTO_OF_PAGE:
            return Page(views, after)
        at_once = min(2 * at_once, _LOOKED_INTO_OF_PAGE - looked_into)
    page = views[:limit]
    last = page[-1].flag if len(views) > limit else None
    return Page(page, Position(last.created_at, last.id) if last else None)


def list_of_capture(session: Session, capture: RequestName) -> list[View]:
    """Return every flag on the capture, ordered by concept."""
    query = _joined().where(*names.is_of_capture(Flag, capture)).order_by(Flag.concept, Flag.layer, Flag.id)
    return [View(*row) for row in session.execute(query)]


def list_of_captures(session: Session, captures: Collection[uuid.UUID]) -> list[View]:
    """Return every flag on captures with these identities, of all models, ordered by concept."""
    query = _joined().where(Flag.capture_id.in_(captures)).order_by(Flag.concept, Flag.layer, Flag.id)
    return [View(*row) for row in session.execute(query)]


def _joined() -> _Query:
    return (
        select(Flag, Decoder, Model.name)
        .join(Model, Model.id == Flag.model_id)
        .join(Decoder, Decoder.id == Flag.decoder_id)
        .options(defer(Decoder.card, raiseload=True))
    )


def _of_page(page: Select[Flag]) -> _Query:
    """Return the query for a page's flags with what they are read with, looked up for these alone.

    Joined before the page is cut, conditions of row-level security have PostgreSQL expect one row in all,
    and it sorts every flag that there is.
    """
    flag = aliased(Flag, page.subquery())
    return (
        select(flag, Decoder, Model.name)
        .join(Model, Model.id == flag.model_id)
        .join(Decoder, Decoder.id == flag.decoder_id)
        .options(defer(Decoder.card, raiseload=True))
        .order_by(flag.created_at.desc(), flag.id.desc())
    )


def _narrowed(query: Select[Flag], wanted: Filter, model_id: uuid.UUID | None) -> Select[Flag]:
    equal = (
        (Flag.model_id, model_id),
        (Flag.concept, wanted.concept),
        (Flag.severity, wanted.severity),
    )
    query = query.where(*(column == value for column, value in equal if value is not None))
    if wanted.request_id is not None:
        query = query.where(names.is_of_request(Flag, wanted.request_id))
    if wanted.captured_after is not None:
        query = query.where(Flag.last_captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        query = query.where(Flag.first_captured_at < wanted.captured_before)
    return query


def _faithful(session: Session, wanted: Filter, views: Sequence[View]) -> list[View]:
    """Return those of the flags that enough verified readings with the wanted fidelity stand behind.

    Some flags at a time, so that PostgreSQL looks into their days and no others.
    """
    days_begin = session.scalar(_DAYS_BEGIN)
    positions: dict[uuid.UUID, int] = {}

    def kind(view: View) -> tuple[bool, bool]:
        is_before = days_begin is not None and view.flag.first_captured_at < later(
            days_begin, REQUEST_LASTS
        )
        return (view.flag.capture_id is not None, is_before)

    for has_identity, is_before in {kind(view) for view in views}:
        flags = [view.flag for view in views if kind(view) == (has_identity, is_before)]
        # By its identity alone, or PostgreSQL asks the index of request ids as well.
        is_same = Sample.capture_id == Flag.capture_id
        if not has_identity:
            is_same = and_(Sample.capture_id.is_(None), Sample.request_id == Flag.request_id)
        apart = dt.timedelta() if has_identity and not is_before else REQUEST_LASTS
        rows = session.execute(_count_positions(wanted, flags, is_same, apart))
        positions |= {identity: count for identity, count in rows}  # noqa: C416  # rows, typed
    return [view for view in views if positions.get(view.flag.id, 0) >= view.flag.positions_required]


def _count_positions(
    wanted: Filter, flags: Sequence[Flag], is_same_capture: ColumnElement[bool], apart: dt.timedelta
) -> Select[uuid.UUID, int]:
    """Return the query for the positions of each flag that has any, looked up flag by flag.

    A flag spans what matched; ``apart`` is how far times of samples and of their readings may lie apart.

    OFFSET is a fence: what is in it is looked up for each row of what is before it. Joined without one,
    conditions of row-level security have PostgreSQL expect a row or two, and it reads all of the days.
    """
    first = earlier(min(flag.first_captured_at for flag in flags), apart)
    last = later(max(flag.last_captured_at for flag in flags), apart)
    bounds = ((Explanation.fve, wanted.min_fve), (Explanation.cosine, wanted.min_cosine))
    sample = aliased(
        Sample,
        select(Sample)
        .where(
            is_same_capture,
            Sample.model_id == Flag.model_id,
            Sample.layer == Flag.layer,
            between(Sample.captured_at, first, last),
            between(Sample.captured_at, Flag.first_captured_at - apart, Flag.last_captured_at + apart),
        )
        .correlate(Flag)
        .offset(0)
        .lateral(),
    )
    at, of_sample = Explanation.captured_at, sample.captured_at
    # An equality where it may be one: by a span neighbouring days are looked into as well.
    is_at_time = between(at, of_sample - apart, of_sample + apart) if apart else at == of_sample
    reading = aliased(
        Explanation,
        select(Explanation)
        .where(
            Explanation.sample_id == sample.id,
            is_at_time,
            Explanation.decoder_id == Flag.decoder_id,
            between(Explanation.captured_at, first, last),
            Explanation.verified,
            *(column >= least for column, least in bounds if least is not None),
        )
        .correlate(Flag, sample)
        .offset(0)
        .lateral(),
    )
    match = (
        select(ConceptMatch.concept)
        .where(
            is_match_of_explanation(reading),
            ConceptMatch.concept == Flag.concept,
            between(ConceptMatch.captured_at, first, last),
        )
        .correlate(Flag, reading)
        .offset(0)
        .lateral()
    )
    return (
        select(Flag.id, func.count(sample.position.distinct()))
        .select_from(Flag)
        .join(sample, true())
        .join(reading, true())
        .join(match, true())
        .where(Flag.id.in_([flag.id for flag in flags]))
        .group_by(Flag.id)
    )
