"""Reading explanations together with the sample, decoder and matches that give them meaning."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import Select, case, exists, select
from sqlalchemy.orm import Session, defer

from service.store.configuration.read import digests_of
from service.store.identity import capture_key
from service.store.read import names
from service.store.read.page import Page, Position, older_than
from service.store.tables import ConceptMatch, Decoder, Explanation, Model, RequestName, Sample

_CAPTURES_AT_FIRST: Final = 16
_CAPTURES_AT_MOST: Final = 512
_NEWEST_FIRST: Final = (Explanation.captured_at.desc(), Explanation.id.desc())


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which explanations to list; None means any."""

    model: str | None = None
    request_id: str | None = None  # any id that its client may have sent
    layer: int | None = None
    concept: str | None = None  # explanations that matched it, verified or not
    verified: bool | None = None
    captured_after: dt.datetime | None = None  # inclusive
    captured_before: dt.datetime | None = None  # exclusive


class View(NamedTuple):
    """One explanation and what it must be read with. ``decoder.card`` is not loaded."""

    explanation: Explanation
    sample: Sample
    decoder: Decoder
    model: str
    matches: Sequence[ConceptMatch]
    digests: Mapping[int, str]
    """Of configurations, by id: among them those that the explanation and its sample name."""


def list_explanations(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[View]:
    """Return one page, newest first.

    Of one request id that is by its captures, each capture's own newest first within it: what a page costs
    is then bounded by what it lists, and not by how much clients have stored under the id.
    """
    model_id = None
    if wanted.model is not None:
        model_id = session.scalar(select(Model.id).where(Model.name == wanted.model))
        if model_id is None:  # else all explanations would be read to find none
            return Page([], None)
    query = _narrowed(_joined(), wanted, model_id)
    if wanted.request_id is not None:
        views = _list_of_request(session, query, wanted.request_id, after, limit + 1)
    else:
        if after is not None:
            query = query.where(older_than(Explanation.captured_at, Explanation.id, after))
        views = _load(session, query.order_by(*_NEWEST_FIRST).limit(limit + 1))
    page = views[:limit]
    last = page[-1].explanation if len(views) > limit else None
    return Page(page, Position(last.captured_at, last.id) if last else None)


def get_explanation(session: Session, identity: uuid.UUID) -> View | None:
    """Return one explanation, None when there is none of that id."""
    views = _load(session, _joined().where(Explanation.id == identity))
    return views[0] if views else None


def list_of_samples(
    session: Session, samples: Sequence[uuid.UUID], decoder_id: uuid.UUID | None = None
) -> list[View]:
    """Return every explanation of these samples, of one decoder if given, by position."""
    order = (Sample.layer, Sample.position, Explanation.created_at, Explanation.id)
    query = _joined().where(Explanation.sample_id.in_(samples)).order_by(*order)
    return _load(
        session, query if decoder_id is None else query.where(Explanation.decoder_id == decoder_id)
    )


_Query = Select[Explanation, Sample, Decoder, str]


def _joined() -> _Query:
    return (
        select(Explanation, Sample, Decoder, Model.name)
        .join(Sample, Sample.id == Explanation.sample_id)
        .join(Model, Model.id == Sample.model_id)
        .join(Decoder, Decoder.id == Explanation.decoder_id)
        .options(defer(Decoder.card, raiseload=True))
    )


def _narrowed(query: _Query, wanted: Filter, model_id: uuid.UUID | None) -> _Query:
    equal = (
        (Sample.model_id, model_id),
        (Sample.layer, wanted.layer),
        (Explanation.verified, wanted.verified),
    )
    query = query.where(*(column == value for column, value in equal if value is not None))
    if wanted.concept is not None:
        matched = (ConceptMatch.explanation_id == Explanation.id, ConceptMatch.concept == wanted.concept)
        query = query.where(exists().where(*matched))
    if wanted.captured_after is not None:
        query = query.where(Explanation.captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        query = query.where(Explanation.captured_at < wanted.captured_before)
    return query


def _list_of_request(
    session: Session, query: _Query, request_id: str, after: Position | None, limit: int
) -> list[View]:
    """Return the first explanations of the captures under the id, some captures at a time."""
    views: list[View] = []
    place = after
    if after is not None and (capture := _capture_at(session, request_id, after)) is not None:
        rest = query.where(
            *names.is_of_capture(Sample, capture),
            older_than(Explanation.captured_at, Explanation.id, after),
        )
        views = _load(session, rest.order_by(*_NEWEST_FIRST).limit(limit))
        place = Position(capture.captured_at, capture.capture)
    at_once = _CAPTURES_AT_FIRST
    while len(views) < limit:
        captures = names.list_captures(session, request_id, place, at_once)
        for part in _read_together(query, captures):
            if len(views) < limit:
                views += _load(session, part.limit(limit - len(views)))
        if len(captures) < at_once:
            break
        place = Position(captures[-1].captured_at, captures[-1].capture)
        at_once = min(2 * at_once, _CAPTURES_AT_MOST)
    return views


def _capture_at(session: Session, request_id: str, position: Position) -> RequestName | None:
    """Return which capture under the id the explanation at the position is of."""
    query = select(Sample).join(Explanation, Explanation.sample_id == Sample.id)
    sample = session.scalar(query.where(Explanation.id == position.id))
    if sample is None:
        return None
    capture = capture_key(sample.capture_id, sample.model_id, sample.request_id, sample.tenant_id)
    named = (RequestName.name.in_(names.names_of(request_id)), RequestName.capture == capture)
    return session.scalar(select(RequestName).where(*named))


def _read_together(query: _Query, captures: Sequence[RequestName]) -> Iterator[_Query]:
    """Return queries for the captures' explanations in the captures' order."""
    for has_identity, group in groupby(captures, lambda capture: capture.capture_id is not None):
        if has_identity:
            order = {capture.capture_id: number for number, capture in enumerate(group)}
            of_these = query.where(Sample.capture_id.in_(order))
            yield of_these.order_by(case(order, value=Sample.capture_id), *_NEWEST_FIRST)
        else:
            for capture in group:
                yield query.where(*names.is_of_capture(Sample, capture)).order_by(*_NEWEST_FIRST)


def _load(session: Session, query: _Query) -> list[View]:
    rows = session.execute(query).all()
    matches: defaultdict[uuid.UUID, list[ConceptMatch]] = defaultdict(list)
    wanted = ConceptMatch.explanation_id.in_([row[0].id for row in rows])
    for match in session.scalars(select(ConceptMatch).where(wanted).order_by(ConceptMatch.concept)):
        matches[match.explanation_id].append(match)
    named = {one.configuration_id for row in rows for one in (row[0], row[1])} - {None}
    digests = digests_of(session, named)
    return [View(row[0], row[1], row[2], row[3], matches[row[0].id], digests) for row in rows]
