"""Reading flags: concepts found on requests at enough verified positions."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select, true
from sqlalchemy.orm import Session, aliased, defer

from service.store.days import REQUEST_LASTS, is_explanation_of_sample, is_match_of_explanation, near
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

_LOOKED_INTO_AT_MOST: Final = 500
"""Flags at once, of which some do not have the wanted fidelity."""


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
    """
    model_id = None
    if wanted.model is not None:
        model_id = session.scalar(select(Model.id).where(Model.name == wanted.model))
        if model_id is None:
            return Page([], None)
    query = _narrowed(select(Flag), wanted, model_id).order_by(Flag.created_at.desc(), Flag.id.desc())
    has_fidelity = wanted.min_fve is not None or wanted.min_cosine is not None
    views: list[View] = []
    at_once = limit + 1
    while True:
        part = query if after is None else query.where(older_than(Flag.created_at, Flag.id, after))
        found = [View(*row) for row in session.execute(_of_page(part.limit(at_once)))]
        views += _faithful(session, wanted, found) if has_fidelity else found
        if len(found) < at_once or len(views) > limit:
            break
        after = Position(found[-1].flag.created_at, found[-1].flag.id)
        at_once = min(2 * at_once, _LOOKED_INTO_AT_MOST)
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
    positions: dict[uuid.UUID, int] = {}
    for has_identity in (True, False):
        flags = [view.flag for view in views if (view.flag.capture_id is not None) is has_identity]
        if flags:
            is_same = Sample.capture_id == Flag.capture_id if has_identity else Sample.capture_id.is_(None)
            rows = session.execute(_count_positions(wanted, flags, is_same))
            positions |= {identity: count for identity, count in rows}  # noqa: C416  # rows, typed
    return [view for view in views if positions.get(view.flag.id, 0) >= view.flag.positions_required]


def _count_positions(
    wanted: Filter, flags: Sequence[Flag], is_same_capture: ColumnElement[bool]
) -> Select[uuid.UUID, int]:
    """Return the query for the positions of each flag that has any, looked up flag by flag.

    OFFSET is a fence: what is in it is looked up for each row of what is before it. Joined without one,
    conditions of row-level security have PostgreSQL expect a row or two, and it reads all of the days.
    """
    first = min(flag.first_captured_at for flag in flags)
    last = max(flag.last_captured_at for flag in flags)
    bounds = ((Explanation.fve, wanted.min_fve), (Explanation.cosine, wanted.min_cosine))
    sample = aliased(
        Sample,
        select(Sample)
        .where(
            is_same_capture,
            Sample.model_id == Flag.model_id,
            Sample.layer == Flag.layer,
            Sample.request_id == Flag.request_id,
            near(Sample.captured_at, first, last),
            # The flag spans what matched.
            Sample.captured_at >= Flag.first_captured_at - REQUEST_LASTS,
            Sample.captured_at <= Flag.last_captured_at + REQUEST_LASTS,
        )
        .correlate(Flag)
        .offset(0)
        .lateral(),
    )
    reading = aliased(
        Explanation,
        select(Explanation)
        .where(
            is_explanation_of_sample(sample),
            Explanation.decoder_id == Flag.decoder_id,
            near(Explanation.captured_at, first, last),
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
            near(ConceptMatch.captured_at, first, last),
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
