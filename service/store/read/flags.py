"""Reading flags: concepts found on requests at enough verified positions."""

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session, defer

from service.store.days import is_match_of_explanation, is_sample_of_explanation, near
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
    query = _narrowed(_joined(), wanted).order_by(Flag.created_at.desc(), Flag.id.desc())
    has_fidelity = wanted.min_fve is not None or wanted.min_cosine is not None
    views: list[View] = []
    at_once = limit + 1
    while True:
        part = query if after is None else query.where(older_than(Flag.created_at, Flag.id, after))
        found = [View(*row) for row in session.execute(part.limit(at_once))]
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


def _narrowed(query: _Query, wanted: Filter) -> _Query:
    equal = (
        (Model.name, wanted.model),
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
    if not views:
        return []
    flags = [view.flag for view in views]
    first = min(flag.first_captured_at for flag in flags)
    last = max(flag.last_captured_at for flag in flags)
    bounds = ((Explanation.fve, wanted.min_fve), (Explanation.cosine, wanted.min_cosine))
    query = (
        select(Flag.id, func.count(Sample.position.distinct()))
        .join(
            Sample,
            and_(
                Sample.model_id == Flag.model_id,
                Sample.layer == Flag.layer,
                Sample.request_id == Flag.request_id,
                names.is_same_capture(Sample.capture_id, Flag.capture_id),
            ),
        )
        .join(Explanation, is_sample_of_explanation() & (Explanation.decoder_id == Flag.decoder_id))
        .join(ConceptMatch, is_match_of_explanation() & (ConceptMatch.concept == Flag.concept))
        .where(
            Flag.id.in_([flag.id for flag in flags]),
            # The flag spans what matched.
            *(near(table.captured_at, first, last) for table in (Sample, Explanation, ConceptMatch)),
            Explanation.verified,
            *(column >= least for column, least in bounds if least is not None),
        )
        .group_by(Flag.id)
    )
    positions = {row[0]: row[1] for row in session.execute(query)}
    return [view for view in views if positions.get(view.flag.id, 0) >= view.flag.positions_required]
