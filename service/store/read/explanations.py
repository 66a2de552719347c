"""Reading explanations together with the sample, decoder and matches that give them meaning."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session, defer

from service.store.read import names
from service.store.read.page import Page, Position, older_than
from service.store.tables import ConceptMatch, Decoder, Explanation, Model, Sample


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


def list_explanations(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[View]:
    """Return one page, newest capture first."""
    model_id = None
    if wanted.model is not None:
        model_id = session.scalar(select(Model.id).where(Model.name == wanted.model))
        if model_id is None:  # else all explanations would be read to find none
            return Page([], None)
    query = _narrowed(_joined(), wanted, model_id).order_by(
        Explanation.captured_at.desc(), Explanation.id.desc()
    )
    if after is not None:
        query = query.where(older_than(Explanation.captured_at, Explanation.id, after))
    views = _load(session, query.limit(limit + 1))
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
    if wanted.request_id is not None:
        query = query.where(names.is_of_request(Sample, wanted.request_id))
    if wanted.concept is not None:
        matched = (ConceptMatch.explanation_id == Explanation.id, ConceptMatch.concept == wanted.concept)
        query = query.where(exists().where(*matched))
    if wanted.captured_after is not None:
        query = query.where(Explanation.captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        query = query.where(Explanation.captured_at < wanted.captured_before)
    return query


def _load(session: Session, query: _Query) -> list[View]:
    rows = session.execute(query).all()
    matches: defaultdict[uuid.UUID, list[ConceptMatch]] = defaultdict(list)
    wanted = ConceptMatch.explanation_id.in_([row[0].id for row in rows])
    for match in session.scalars(select(ConceptMatch).where(wanted).order_by(ConceptMatch.concept)):
        matches[match.explanation_id].append(match)
    return [View(row[0], row[1], row[2], row[3], matches[row[0].id]) for row in rows]
