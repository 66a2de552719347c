"""Reading flags: concepts found on requests at enough verified positions."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Final, NamedTuple

from sqlalchemy import ARRAY, DateTime, Select, Uuid, and_, any_, bindparam, func, select, text, true
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
_AT_LEAST: Final = 25
"""Flags at once."""
# Of another time than their samples' there are readings only where there were no days yet, see `days`.
# A bitmap of all that was captured between two times would be made for each flag, to find a few samples.
_DAYS_BEGIN: Final = text(r"""
    SELECT (
        SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''([^'']+)''\)')::timestamptz
        FROM pg_class WHERE oid = to_regclass('explanations_before')
    ), set_config('enable_bitmapscan', 'off', true)
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
    days_begin = session.scalar(_DAYS_BEGIN) if has_fidelity else None
    views: list[View] = []
    at_once, looked_into = limit + 1, 0
    while True:
        part = query if after is None else query.where(older_than(Flag.created_at, Flag.id, after))
        found = [View(*row) for row in session.execute(_of_page(part.limit(at_once)))]
        views += _faithful(session, wanted, found, days_begin) if has_fidelity else found
        if len(found) < at_once or len(views) > limit:
            break
        after = Position(found[-1].flag.created_at, found[-1].flag.id)
        looked_into += len(found)
        if looked_into >= _LOOKED_INTO_OF_PAGE:
            return Page(views, after)
        # By the share so far a quarter more than what is missing; none: as many as there may be.
        share = len(views) / looked_into
        missing = 5 * (limit + 1 - len(views)) / (4 * share) if share else _LOOKED_INTO_OF_PAGE
        at_once = min(max(ceil(missing), _AT_LEAST), _LOOKED_INTO_OF_PAGE - looked_into)
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


def _faithful(
    session: Session, wanted: Filter, views: Sequence[View], days_begin: dt.datetime | None
) -> list[View]:
    """Return those of the flags that enough verified readings with the wanted fidelity stand behind.

    Some flags at a time, so that PostgreSQL looks into their days and no others.
    """
    given = {"fve": wanted.min_fve, "cosine": wanted.min_cosine}
    bounds = {name: least for name, least in given.items() if least is not None}
    faithful: set[uuid.UUID] = set()

    def kind(view: View) -> tuple[bool, bool]:
        is_before = days_begin is not None and view.flag.first_captured_at < later(
            days_begin, REQUEST_LASTS
        )
        return (view.flag.capture_id is not None, is_before)

    for has_identity, is_before in {kind(view) for view in views}:
        flags = [view.flag for view in views if kind(view) == (has_identity, is_before)]
        apart = dt.timedelta() if has_identity and not is_before else REQUEST_LASTS
        values = bounds | {
            "ids": [flag.id for flag in flags],
            "first": earlier(min(flag.first_captured_at for flag in flags), apart),
            "last": later(max(flag.last_captured_at for flag in flags), apart),
        }
        query = _are_faithful(frozenset(bounds), has_identity=has_identity, is_apart=bool(apart))
        faithful.update(session.scalars(query, values))
    return [view for view in views if view.flag.id in faithful]


@cache
def _are_faithful(given: frozenset[str], *, has_identity: bool, is_apart: bool) -> Select[uuid.UUID]:
    """Return the query for those of the flags with enough positions, looked up flag by flag.

    A flag spans what matched; ``apart`` is how far times of samples and of their readings may lie apart.

    OFFSET is a fence: what is in it is looked up for each row of what is before it. Joined without one,
    conditions of row-level security have PostgreSQL expect a row or two, and it reads all of the days.
    """
    apart = REQUEST_LASTS if is_apart else dt.timedelta()
    first, last = (bindparam(name, type_=DateTime(timezone=True)) for name in ("first", "last"))
    # By its identity alone, or PostgreSQL asks the index of request ids as well.
    is_same = Sample.capture_id == Flag.capture_id
    if not has_identity:
        is_same = and_(Sample.capture_id.is_(None), Sample.request_id == Flag.request_id)
    sample = aliased(
        Sample,
        select(Sample)
        .where(
            is_same,
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
    is_at_time = between(at, of_sample - apart, of_sample + apart) if is_apart else at == of_sample
    least = {
        "fve": Explanation.fve >= bindparam("fve"),
        "cosine": Explanation.cosine >= bindparam("cosine"),
    }
    reading = aliased(
        Explanation,
        select(Explanation)
        .where(
            Explanation.sample_id == sample.id,
            is_at_time,
            Explanation.decoder_id == Flag.decoder_id,
            between(Explanation.captured_at, first, last),
            Explanation.verified,
            *(least[name] for name in sorted(given)),
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
        select(Flag.id)
        .select_from(Flag)
        .join(sample, true())
        .join(reading, true())
        .join(match, true())
        .where(Flag.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
        .group_by(Flag.id)
        .having(func.count(sample.position.distinct()) >= Flag.positions_required)
    )
