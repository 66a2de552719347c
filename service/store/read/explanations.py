"""Reading explanations together with the sample, decoder and matches that give them meaning."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Row,
    Select,
    SQLColumnExpression,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import Session, aliased, defer

from service.store.configuration.read import digests_of
from service.store.days import (
    REQUEST_LASTS,
    between,
    earlier,
    is_match_of_explanation,
    is_sample_of_explanation,
    later,
    near,
    spans_near,
    spans_of,
    within,
)
from service.store.identity import capture_key
from service.store.read import names
from service.store.read.page import Page, Position, older_than
from service.store.tables import (
    SEARCHED_CHARACTERS,
    ConceptMatch,
    Decoder,
    Explanation,
    Model,
    RequestName,
    Sample,
)
from service.store.tenants import scope

_CAPTURES_AT_FIRST: Final = 16
_CAPTURES_AT_MOST: Final = 512
_GROW: Final = 4
_MATCHES_AT_MOST: Final = 512
"""Looked up at first, where some are not wanted."""
_MATCHES_OF_PAGE: Final = 1280
"""After so many a page ends as it is."""
_SAMPLES_AT_MOST: Final = 2048
_DAYS_AT_FIRST: Final = dt.timedelta(days=1)
_DAYS_AT_MOST: Final = dt.timedelta(days=64)
"""At once; then all that are left."""
_DAYS_GROW: Final = 8
_MOMENT: Final = dt.timedelta(microseconds=1)
_TIME: Final = DateTime(timezone=True)
# The places as a table, so that how many there are makes no other statement.
_PLACE: Final = (
    func.unnest(bindparam("ids", type_=ARRAY(Uuid)), bindparam("times", type_=ARRAY(_TIME)))
    .table_valued(column("id", Uuid), column("at", _TIME), with_ordinality="number", name="place")
    .render_derived()
)
_NEWEST_FIRST: Final = (Explanation.captured_at.desc(), Explanation.id.desc())


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which explanations to list; None means any."""

    model: str | None = None
    request_id: str | None = None  # any id that its client may have sent
    layer: int | None = None
    concept: str | None = None  # explanations that matched it, verified or not
    verified: bool | None = None
    max_anomaly_p: float | None = None  # anomaly p-values up to this, inclusive; no reading without one
    words: str | None = None  # as websearch_to_tsquery takes them; `read.words` lists by them
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

    Of a concept a page looks up so many matches: where another filter wants few of them it may be short, or
    empty, and have a next one.
    """
    known = look_up(session, wanted)
    if known is None:
        return Page([], None)
    model_id = known.model_id
    reached = None
    if wanted.request_id is not None:
        query = _joined().where(*_of_sample(wanted, model_id), *_of_reading(wanted))
        views = _list_of_request(session, query, wanted, after, limit + 1)
    else:
        asked = _Asked(wanted, model_id, scope.entered_tenant(session), after)
        if wanted.concept is None:
            views = _list_by_days(session, asked, limit + 1)
        else:  # it may be as rare as it likes
            views, reached = _list_matched(session, asked, limit + 1)
    page = views[:limit]
    last = page[-1] if len(views) > limit else None
    return Page(page, _position(last, wanted) if last else reached)


class Known(NamedTuple):
    """What a filter's names stand for."""

    model_id: uuid.UUID | None


def look_up(session: Session, wanted: Filter) -> Known | None:
    """Return what the names stand for, None when nothing has them: else all would be read to find none."""
    model_id = None
    if wanted.model is not None:
        model_id = session.scalar(select(Model.id).where(Model.name == wanted.model))
        if model_id is None:
            return None
    if wanted.layer is not None and not _is_read(session, wanted.layer):
        return None
    return Known(model_id)


def list_at(
    session: Session, places: Sequence[Position], wanted: Filter, known: Known, limit: int
) -> list[View]:
    """Return the first of the explanations at these places that are wanted, newest first."""
    asked = _Asked(wanted, known.model_id, None, None)
    newest_first = sorted(places, key=lambda place: (place.at, place.id), reverse=True)
    return _views(session, _read_at(session, newest_first, asked, limit))


def get_explanation(session: Session, identity: uuid.UUID) -> View | None:
    """Return one explanation, None when there is none of that id."""
    at = session.scalar(_time_of(identity))
    if at is None:
        return None
    query = _joined().where(Explanation.id == identity, Explanation.captured_at == at)
    views = _load(session, query.where(near(Sample.captured_at, at)))
    return views[0] if views else None


def find_sample(session: Session, explanation: uuid.UUID) -> Sample | None:
    """Return the sample of the explanation with this id, None when there is none of that id."""
    at = session.scalar(_time_of(explanation))
    return None if at is None else session.scalar(_sample_at(explanation, at))


def list_of_samples(
    session: Session, samples: Sequence[Sample], decoder_id: uuid.UUID | None = None
) -> list[View]:
    """Return every explanation of these samples, of one decoder if given, by position."""
    rows = _readings(session, samples, decoder=decoder_id)
    rows.sort(key=lambda row: (row[1].layer, row[1].position, row[0].created_at, row[0].id))
    return _views(session, rows)


def _position(last: View, wanted: Filter) -> Position:
    """Return where a page ends, in the order of its listing."""
    at = last.sample.captured_at if _is_by_sample(wanted) else last.explanation.captured_at
    return Position(at, last.explanation.id)


def _is_by_sample(wanted: Filter) -> bool:
    """Tell whether the listing walks the samples of its model, whatever is stored of other models.

    Explanations name no model. Their times are their samples', but for rows of before there were days.
    Readings of anomalous states have an index of their own, and are fewer than a model's.
    """
    names_other = wanted.request_id is not None or wanted.concept is not None
    return wanted.model is not None and not names_other and wanted.max_anomaly_p is None


def _is_read(session: Session, layer: int) -> bool:
    """Tell whether some decoder reads the layer: no other has readings."""
    return session.scalar(select(Decoder.id).where(Decoder.layer == layer).limit(1)) is not None


def _time_of(explanation: uuid.UUID) -> Select[dt.datetime]:
    """Return the query that looks into every day, by a plan that stays in the database, see decision 28."""
    at = func.subtext_time_of_explanation(explanation, type_=DateTime(timezone=True))
    return select(at.column_valued())


def _sample_at(explanation: uuid.UUID, at: dt.datetime) -> Select[Sample]:
    query = select(Sample).join(Explanation, is_sample_of_explanation())
    return query.where(
        Explanation.id == explanation, Explanation.captured_at == at, near(Sample.captured_at, at)
    )


_Query = Select[Explanation, Sample, Decoder, str]
_Reading = tuple[Explanation, Sample, Decoder, str]


def _joined() -> _Query:
    return (
        select(Explanation, Sample, Decoder, Model.name)
        .join(Sample, is_sample_of_explanation())
        .join(Model, Model.id == Sample.model_id)
        .join(Decoder, Decoder.id == Explanation.decoder_id)
        .options(defer(Decoder.card, raiseload=True))
    )


class _Asked(NamedTuple):
    """What a listing is narrowed by."""

    wanted: Filter
    model_id: uuid.UUID | None
    tenant: uuid.UUID | None
    after: Position | None


def _list_by_days(session: Session, asked: _Asked, limit: int) -> list[View]:
    """Return the first explanations, looking into a day at first, and then into more and more of them.

    Of all days at once PostgreSQL would plan and begin a scan of each.
    """
    views: list[View] = []
    list_span = _list_sampled if _is_by_sample(asked.wanted) else _list_walked
    for span in _spans(asked.wanted, asked.after):
        views += list_span(session, asked, span, limit - len(views))
        if len(views) == limit:
            break
    return views


def _list_walked(session: Session, asked: _Asked, span: "_Span", limit: int) -> list[View]:
    """Return the first of the span, each with its sample of the same time, as all but the oldest have one.

    Where one has none, or none that may be met, they are all read by whatever is near.
    """
    given: dict[str, Any] = {"start": span.start, "end": span.end, "tenant": asked.tenant, "limit": limit}
    given |= _values(asked) | {
        "place_at": asked.after and asked.after.at,
        "place": asked.after and asked.after.id,
    }
    values = {name: value for name, value in given.items() if value is not None}
    rows = session.execute(_walk(frozenset(values), is_near=False), values).all()
    if any(row[1] is None for row in rows):
        widened = span.widened()
        near = {"near_start": widened.start, "near_end": widened.end}
        values |= {name: value for name, value in near.items() if value is not None}
        rows = session.execute(_walk(frozenset(values), is_near=True), values).all()
    return _views(session, rows)


@cache
def _walk(given: frozenset[str], *, is_near: bool) -> Select[Any]:
    """Return the query that walks the order of the page, by the names of the values that it is given.

    By the tenant as a value: PostgreSQL does not know how many rows are of one that a policy names.
    """
    bounds = _days_of(Sample.captured_at, "near_" if is_near else "", given)
    read_with = _read_with(Explanation, bounds, is_near=is_near)
    of_page = _days_of(Explanation.captured_at, "", given)
    if "tenant" in given:
        of_page.append(Explanation.tenant_id == bindparam("tenant"))
    if "place" in given:
        of_page.append(_is_older(Explanation.captured_at, Explanation.id))
    query = _with(
        select(Explanation).select_from(Explanation), Explanation, read_with, given, is_near=is_near
    )
    return query.where(*of_page).order_by(*_NEWEST_FIRST).limit(bindparam("limit", type_=Integer))


def _days_of(
    at: SQLColumnExpression[dt.datetime], prefix: str, given: frozenset[str]
) -> list[ColumnElement[bool]]:
    start = [at >= bindparam(f"{prefix}start")] if f"{prefix}start" in given else []
    return [*start, at < bindparam(f"{prefix}end")] if f"{prefix}end" in given else start


class _ReadWith(NamedTuple):
    """What a reading is looked up with: its sample, its decoder and the name of its model."""

    sample_fence: FromClause
    decoder_fence: FromClause
    sample: Any
    decoder: Any


def _read_with(reading: Any, days: Sequence[ColumnElement[bool]], *, is_near: bool) -> _ReadWith:
    """Return what is looked up for each reading, one by one.

    OFFSET is a fence: what is in it is looked up for each row of what is before it. Joined without one,
    conditions of row-level security have PostgreSQL expect one row in all. Then it reads every row of the
    days and sorts them, where it could walk along the order of the page; or it looks a sample up once for
    each model.
    """
    at = reading.captured_at
    times = between(Sample.captured_at, at - REQUEST_LASTS, at + REQUEST_LASTS)
    is_of_time = times if is_near else Sample.captured_at == at
    of_sample = select(Sample).where(Sample.id == reading.sample_id, is_of_time, *days)
    sample_fence = of_sample.correlate(reading).offset(0).lateral()
    decoder_fence = _decoder_of(reading)
    return _ReadWith(
        sample_fence, decoder_fence, aliased(Sample, sample_fence), aliased(Decoder, decoder_fence)
    )


def _with(
    query: Select[Any], reading: Any, found: _ReadWith, given: frozenset[str], *, is_near: bool
) -> Select[Any]:
    """Return the query for readings with what they are read with, and for those that are wanted.

    What is wanted of a sample stands behind the fence: in it, a sample would be looked for among all of its
    model's. Of another time than its sample's, a reading comes with none at first.
    """
    sample, decoder = found.sample, found.decoder
    name = select(Model.name).where(Model.id == sample.model_id).scalar_subquery()
    query = query.add_columns(sample, decoder, name)
    query = query.outerjoin(found.sample_fence, true()).join(found.decoder_fence, true())
    of_sample = {"model": sample.model_id, "layer": sample.layer}
    equal = [column == bindparam(name) for name, column in of_sample.items() if name in given]
    is_wanted = and_(found.sample_fence.c.id.is_not(None), *equal)
    if is_near:
        query = query.where(is_wanted)
    elif equal:
        query = query.where(or_(found.sample_fence.c.id.is_(None), is_wanted))
    return query.where(*_wanted(reading, given)).options(defer(decoder.card, raiseload=True))


def _values(asked: _Asked) -> dict[str, Any]:
    """Return what is wanted by name, None where anything is."""
    wanted = asked.wanted
    return {
        "model": asked.model_id,
        "layer": wanted.layer,
        "verified": wanted.verified,
        "max_anomaly_p": wanted.max_anomaly_p,
        "words": wanted.words,
        "captured_after": wanted.captured_after,
        "captured_before": wanted.captured_before,
    }


def _wanted(reading: Any, given: frozenset[str]) -> list[ColumnElement[bool]]:
    """Return the conditions for readings, by the names of those values that are given."""
    conditions = {
        "verified": reading.verified == bindparam("verified"),
        "max_anomaly_p": reading.anomaly_p_value <= bindparam("max_anomaly_p"),
        "words": _has_words(reading.text, bindparam("words", type_=Text)),
        "captured_after": reading.captured_at >= bindparam("captured_after"),
        "captured_before": reading.captured_at < bindparam("captured_before"),
    }
    return [condition for name, condition in conditions.items() if name in given]


def _list_sampled(session: Session, asked: _Asked, span: "_Span", limit: int) -> list[View]:
    """Return the first of the span that are of the model, some of its samples at a time."""
    wanted, after = asked.wanted, asked.after
    given: dict[str, Any] = _values(asked) | {"start": span.start, "end": span.end}
    given["place_at"] = after and after.at
    values = {name: value for name, value in given.items() if value is not None}
    before = None if after is None else (after.at, after.id)
    rows: list[_Reading] = []
    at_once = limit if after is None else limit + 1  # the last page's last one is met again
    while True:
        query = _walk_samples(frozenset(values))
        samples = session.scalars(query, values | {"limit": at_once}).all()
        found = _readings(session, samples, model=wanted.model, verified=wanted.verified)
        found.sort(key=lambda row: (row[1].captured_at, row[0].id), reverse=True)
        rows += [row for row in found if before is None or (row[1].captured_at, row[0].id) < before]
        if len(samples) < at_once or len(rows) >= limit:
            return _views(session, rows[:limit])
        values["older_than"] = samples[-1].captured_at
        at_once = min(2 * at_once, _SAMPLES_AT_MOST)


@cache
def _walk_samples(given: frozenset[str]) -> Select[Sample]:
    """Return the query for the newest samples of a model, by the names of the values that it is given.

    With ties: all of the last moment are among them, so that the next ones are older.
    """
    at = Sample.captured_at
    conditions = {
        "model": Sample.model_id == bindparam("model"),
        "layer": Sample.layer == bindparam("layer"),
        "captured_after": at >= bindparam("captured_after"),
        "captured_before": at < bindparam("captured_before"),
        "place_at": at <= bindparam("place_at"),
        "older_than": at < bindparam("older_than"),
    }
    wanted = [condition for name, condition in conditions.items() if name in given]
    query = select(Sample).where(*wanted, *_days_of(at, "", given)).order_by(at.desc())
    return query.fetch(bindparam("limit", type_=Integer), with_ties=True)


def _readings(
    session: Session,
    samples: Sequence[Sample],
    *,
    model: str | None = None,
    verified: bool | None = None,
    decoder: uuid.UUID | None = None,
) -> list[_Reading]:
    """Return the wanted explanations of these samples, each with its decoder and its model's name.

    All of one model may come with its name.
    """
    if not samples:
        return []
    by_id = {sample.id: sample for sample in samples}
    given = {"verified": verified, "decoder": decoder}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    query = frozenset(values)
    near = spans_near([sample.captured_at for sample in samples])
    values |= near | _of_places([Position(sample.captured_at, sample.id) for sample in samples])
    found = session.execute(_of_samples(query, len(near)), values).all()
    models = _names_of(session, samples) if model is None else {one.model_id: model for one in samples}
    named = [(one, by_id[one.sample_id], decoder) for one, decoder in found]
    return [(one, sample, decoder, models[sample.model_id]) for one, sample, decoder in named]


@cache
def _of_samples(given: frozenset[str], bounds: int) -> Select[Explanation, Decoder]:
    """Return the query for explanations of samples, looked up sample by sample.

    Their days are values alone: by a time of the sample's PostgreSQL may rather walk a day than its key.
    """
    is_near = within(Explanation.captured_at, bounds)
    wanted = {
        "verified": Explanation.verified == bindparam("verified"),
        "decoder": Explanation.decoder_id == bindparam("decoder"),
    }
    fence = (
        select(Explanation)
        .where(Explanation.sample_id == _PLACE.c.id, is_near, *(wanted[name] for name in sorted(given)))
        .correlate(_PLACE)
        .offset(0)
        .lateral()
    )
    reading = aliased(Explanation, fence)
    decoder_fence = _decoder_of(reading)
    decoder = aliased(Decoder, decoder_fence)
    query = select(reading, decoder).select_from(_PLACE).join(fence, true()).join(decoder_fence, true())
    return query.options(defer(decoder.card, raiseload=True))


def _decoder_of(reading: Any) -> FromClause:
    return select(Decoder).where(Decoder.id == reading.decoder_id).correlate(reading).offset(0).lateral()


class _Matched(NamedTuple):
    views: list[View]
    reached: Position | None
    """Where it ended before the matches did; None: they are all looked up, or the page is full."""


def _list_matched(session: Session, asked: _Asked, limit: int) -> _Matched:
    """Return the first that matched the concept: many matches, however far apart, are read at once."""
    is_filtered = _is_filtered(asked)
    rows: list[_Reading] = []
    places: list[Position] = []
    after, looked_up = asked.after, 0
    at_once = min(_GROW * limit, _MATCHES_AT_MOST) if is_filtered else limit
    for span in _spans(asked.wanted, asked.after):
        while True:
            places += _find_matches(session, asked.wanted, span, after, at_once - len(places))
            if len(places) < at_once:
                break  # the span has no more
            rows += _read_at(session, places, asked, limit - len(rows))
            looked_up += len(places)
            after, places = places[-1], []
            if len(rows) == limit or looked_up >= _MATCHES_OF_PAGE:
                return _Matched(_views(session, rows), None if len(rows) == limit else after)
            at_once = min(_GROW * at_once, _MATCHES_OF_PAGE - looked_up)
    rows += _read_at(session, places, asked, limit - len(rows))
    return _Matched(_views(session, rows), None)


def _is_filtered(asked: _Asked) -> bool:
    """Tell whether some of what matched the concept is not wanted."""
    wanted = asked.wanted
    return asked.model_id is not None or not (
        wanted.layer is None
        and wanted.verified is None
        and wanted.max_anomaly_p is None
        and wanted.words is None
    )


def _find_matches(
    session: Session, wanted: Filter, span: "_Span", after: Position | None, limit: int
) -> list[Position]:
    """Return the places of the first matches of the concept in the span."""
    given: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "concept": wanted.concept,
        "limit": limit,
    }
    if after is not None:
        given |= {"place_at": after.at, "place": after.id}
    values = {name: value for name, value in given.items() if value is not None}
    return [Position(*row) for row in session.execute(_walk_matches(frozenset(values)), values)]


@cache
def _walk_matches(given: frozenset[str]) -> Select[dt.datetime, uuid.UUID]:
    at, identity = ConceptMatch.captured_at, ConceptMatch.explanation_id
    query = select(at, identity).where(
        ConceptMatch.concept == bindparam("concept"), *_days_of(at, "", given)
    )
    if "place" in given:
        query = query.where(_is_older(at, identity))
    return query.order_by(at.desc(), identity.desc()).limit(bindparam("limit", type_=Integer))


def _is_older(
    at: SQLColumnExpression[dt.datetime], identity: SQLColumnExpression[uuid.UUID]
) -> ColumnElement[bool]:
    """Return the condition for what comes after the place that is given."""
    return tuple_(at, identity) < tuple_(bindparam("place_at", type_=_TIME), bindparam("place", type_=Uuid))


def _read_at(session: Session, places: Sequence[Position], asked: _Asked, limit: int) -> list[_Reading]:
    """Return the first wanted ones of the explanations at these places, in their order.

    Rows are looked up place by place, behind OFFSET as a fence: of a list of ids PostgreSQL may rather walk
    whole days by an index with the id last.
    """
    if not places:
        return []
    times = [place.at for place in places]
    given = {name: value for name, value in _values(asked).items() if value is not None}
    of_places, spans = _of_places(places), spans_of(times)
    values: dict[str, Any] = given | of_places | spans | {"limit": limit}
    query = _look_up(frozenset(given), len(spans), 0, is_near=False)
    rows = session.execute(query, values).all()
    if any(row[1] is None for row in rows):
        near = spans_near(times, "near_")
        query = _look_up(frozenset(given), len(spans), len(near), is_near=True)
        rows = session.execute(query, values | near).all()
    return [(row[0], row[1], row[2], row[3]) for row in rows]


@cache
def _look_up(given: frozenset[str], bounds: int, near_bounds: int, *, is_near: bool) -> Select[Any]:
    """Return the query for what stands at places, by the names of the values that it is given."""
    at = Explanation.captured_at
    fence = (
        select(Explanation)
        .where(Explanation.id == _PLACE.c.id, at == _PLACE.c.at, within(at, bounds))
        .correlate(_PLACE)
        .offset(0)
        .lateral()
    )
    reading = aliased(Explanation, fence)
    of_days = (
        within(Sample.captured_at, near_bounds, "near_") if is_near else within(Sample.captured_at, bounds)
    )
    read_with = _read_with(reading, [of_days], is_near=is_near)
    query = select(reading).select_from(_PLACE).join(fence, true())
    query = _with(query, reading, read_with, given, is_near=is_near)
    return query.order_by(_PLACE.c.number).limit(bindparam("limit", type_=Integer))


def _of_places(places: Sequence[Position]) -> dict[str, Any]:
    return {"ids": [place.id for place in places], "times": [place.at for place in places]}


def _names_of(session: Session, samples: Iterable[Sample]) -> dict[uuid.UUID, str]:
    """Return the names of these samples' models, by id."""
    of_models = select(Model.id, Model.name).where(Model.id.in_({one.model_id for one in samples}))
    return {identity: name for identity, name in session.execute(of_models)}  # noqa: C416  # rows, typed


def _of_sample(wanted: Filter, model_id: uuid.UUID | None) -> list[ColumnElement[bool]]:
    equal = ((Sample.model_id, model_id), (Sample.layer, wanted.layer))
    return [column == value for column, value in equal if value is not None]


def _of_reading(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.verified is not None:
        conditions.append(Explanation.verified == wanted.verified)
    if wanted.max_anomaly_p is not None:
        conditions.append(Explanation.anomaly_p_value <= wanted.max_anomaly_p)
    if wanted.words is not None:
        conditions.append(_has_words(Explanation.text, wanted.words))
    if wanted.captured_after is not None:
        conditions.append(Explanation.captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        conditions.append(Explanation.captured_at < wanted.captured_before)
    return conditions


def _has_words(read_text: SQLColumnExpression[str], words: str | ColumnElement[str]) -> ColumnElement[bool]:
    simple: ColumnElement[str] = literal_column("'simple'::regconfig")
    found_in = func.to_tsvector(simple, func.left(read_text, SEARCHED_CHARACTERS))
    return found_in.bool_op("@@")(func.websearch_to_tsquery(simple, words))


class _Span(NamedTuple):
    """Times from ``start`` (inclusive) to ``end`` (exclusive); None: without a bound."""

    start: dt.datetime | None
    end: dt.datetime | None

    def of(self, column: SQLColumnExpression[dt.datetime]) -> list[ColumnElement[bool]]:
        bounds = [] if self.start is None else [column >= self.start]
        return bounds if self.end is None else [*bounds, column < self.end]

    def widened(self) -> "_Span":
        return _Span(
            None if self.start is None else earlier(self.start, REQUEST_LASTS),
            None if self.end is None else later(self.end, REQUEST_LASTS),
        )


def _spans(wanted: Filter, after: Position | None) -> Iterator[_Span]:
    """Yield spans without a gap, the newest first, each longer than the one before."""
    # Of the last page's last moment too: more may have been captured in it.
    ends = [wanted.captured_before, None if after is None else later(after.at, _MOMENT)]
    end = min((one for one in ends if one is not None), default=None)
    days = _DAYS_AT_FIRST
    start = earlier(end or dt.datetime.now(dt.UTC), days)
    while days <= _DAYS_AT_MOST and (wanted.captured_after is None or wanted.captured_after < start):
        yield _Span(start, end)
        days *= _DAYS_GROW
        start, end = earlier(start, days), start
    yield _Span(wanted.captured_after, end)


def _list_of_request(
    session: Session, query: _Query, wanted: Filter, after: Position | None, limit: int
) -> list[View]:
    """Return the first explanations of the captures under the id, some captures at a time."""
    request_id = wanted.request_id or ""
    if wanted.concept is not None:
        is_wanted = (is_match_of_explanation(), ConceptMatch.concept == wanted.concept)
        query = query.where(exists().where(*is_wanted))
    views: list[View] = []
    place = after
    if after is not None and (capture := _capture_at(session, request_id, after)) is not None:
        rest = _of_captures(query, [capture]).where(
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
    sample = session.scalar(_sample_at(position.id, position.at))
    if sample is None:
        return None
    capture = capture_key(sample.capture_id, sample.model_id, sample.request_id, sample.tenant_id)
    named = (RequestName.name.in_(names.names_of(request_id)), RequestName.capture == capture)
    return session.scalar(select(RequestName).where(*named, near(RequestName.captured_at, position.at)))


def _read_together(query: _Query, captures: Sequence[RequestName]) -> Iterator[_Query]:
    """Return queries for the captures' explanations in the captures' order."""
    for has_identity, found in groupby(captures, lambda capture: capture.capture_id is not None):
        group = list(found)
        if has_identity:
            order = {capture.capture_id: number for number, capture in enumerate(group)}
            of_these = _of_captures(query, group).where(Sample.capture_id.in_(order))
            yield of_these.order_by(case(order, value=Sample.capture_id), *_NEWEST_FIRST)
        else:
            for capture in group:  # of before captures had an identity: an id may be of several requests
                yield query.where(*names.is_of_capture(Sample, capture)).order_by(*_NEWEST_FIRST)


def _of_captures(query: _Query, captures: Sequence[RequestName]) -> _Query:
    """Narrow the query to the days of these captures, but for those of before they had an identity."""
    if any(capture.capture_id is None for capture in captures):
        return query
    times = [capture.captured_at for capture in captures]
    return query.where(
        *(near(table.captured_at, min(times), max(times)) for table in (Sample, Explanation))
    )


def _load(session: Session, query: _Query) -> list[View]:
    return _views(session, session.execute(query).all())


def _views(session: Session, rows: Sequence[Row[*_Reading] | _Reading]) -> list[View]:
    matches = _matches_of(session, [row[0] for row in rows])
    named = {one.configuration_id for row in rows for one in (row[0], row[1])} - {None}
    digests = digests_of(session, named)
    return [View(row[0], row[1], row[2], row[3], matches[row[0].id], digests) for row in rows]


def _matches_of(
    session: Session, readings: Sequence[Explanation]
) -> defaultdict[uuid.UUID, list[ConceptMatch]]:
    """Return the matches by reading and concept, looked up reading by reading: a page may span months."""
    matches: defaultdict[uuid.UUID, list[ConceptMatch]] = defaultdict(list)
    if not readings:
        return matches
    places = [Position(one.captured_at, one.id) for one in readings]
    spans = spans_of([one.captured_at for one in readings])
    for match in session.scalars(_matches_at(len(spans)), _of_places(places) | spans):
        matches[match.explanation_id].append(match)
    return matches


@cache
def _matches_at(bounds: int) -> Select[ConceptMatch]:
    at = ConceptMatch.captured_at
    of_place = (ConceptMatch.explanation_id == _PLACE.c.id, at == _PLACE.c.at, within(at, bounds))
    fence = select(ConceptMatch).where(*of_place).correlate(_PLACE).offset(0).lateral()
    found = aliased(ConceptMatch, fence)
    return select(found).select_from(_PLACE).join(fence, true()).order_by(found.concept)
