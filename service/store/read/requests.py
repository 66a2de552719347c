"""Everything that is stored under one request id: one capture, or several that share it."""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, DateTime, Label, Select, column, func, select, true
from sqlalchemy.orm import Session, aliased

from service.store.days import among, near_any
from service.store.read import discoveries, explanations, flags, names
from service.store.read.page import Page, Position
from service.store.tables import Explanation, Flag, Model, RequestName, RequestTest, Sample

T = TypeVar("T")


class SampleView(NamedTuple):
    """One sample and its model's name."""

    sample: Sample
    model: str


class Capture(NamedTuple):
    """One engine request that was sampled, at one model."""

    capture_id: uuid.UUID | None
    """None: all that was stored under the request id before captures had an identity."""
    request_id: str
    """The likeliest of the ids that its client may have sent."""
    model: str
    role: str | None
    """Which half of the request its engine served; None: all of it."""
    samples_total: int
    first_captured_at: dt.datetime


class ReasonFigures(NamedTuple):
    """Positions that were chosen for one reason, and with what probability."""

    reason: str
    positions: int
    probability_min: float
    probability_max: float


class Figures(NamedTuple):
    """What the first samples of a capture are, whether they are listed or not."""

    listed: int = 0
    explained: int = 0
    verified: int = 0
    """With a verified reading."""
    reasons: Sequence[ReasonFigures] = ()

    def with_reason(self, added: ReasonFigures, explained: int, verified: int) -> "Figures":
        """Return the figures with these positions counted too, by reason in order."""
        return Figures(
            self.listed + added.positions,
            self.explained + explained,
            self.verified + verified,
            sorted([*self.reasons, added]),
        )


class CaptureView(NamedTuple):
    """One capture with figures of the first of its samples, and everything that is known about those."""

    capture: Capture
    figures: Figures
    samples: Sequence[SampleView]
    """Empty where rows were not wanted, and so are the explanations."""
    explanations: Sequence[explanations.View]
    flags: Sequence[flags.View]
    tests: Sequence[discoveries.View]


class View(NamedTuple):
    """What is stored under one request id."""

    request_id: str
    """As it was asked for."""
    captures_total: int
    """How many there are on all pages; what is counted at most stands for that many or more."""
    captures: Page[CaptureView]


COUNTED_CAPTURES: Final = 10_000
"""More are not counted: clients may send any number of requests with the same id."""


class Limits(NamedTuple):
    """How much an answer lists."""

    captures: int
    samples: int
    """Of each capture."""
    counted: int = COUNTED_CAPTURES
    """Of all captures."""
    with_rows: bool = True
    """False: figures alone, for which no row has to be loaded."""


class TracedRequest(NamedTuple):
    """One request of a trace at one model."""

    request_id: str
    capture_id: uuid.UUID | None
    model: str
    span_ids: list[str]  # distinct; of before captures, a reused request id may have come from several
    role: str | None
    samples: int  # of this trace, among those that were read
    first_captured_at: dt.datetime
    last_captured_at: dt.datetime


TRACED_SAMPLES: Final = 10_000
"""More of one trace are not read: clients may send any number of requests with the same."""


# By a plan that stays in the database, see decision 28.
_DAYS_OF_TRACE: Final = (
    column("first_at", DateTime(timezone=True)),
    column("last_at", DateTime(timezone=True)),
)


class TracedRequests(NamedTuple):
    """Requests of a trace. ``total`` counts all that were read of, ``requests`` holds the first of them."""

    total: int
    requests: list[TracedRequest]
    truncated: bool
    """The trace has more samples than are read: its later requests and samples are left out."""


def list_of_trace(
    session: Session, trace_id: str, limit: int, samples: int = TRACED_SAMPLES
) -> TracedRequests:
    """Return the first ``limit`` requests of a trace that have a stored sample, by their first capture.

    It reads the first so many samples of the trace, by the time of their capture. What is sent later under
    a trace id pushes nothing out of the answer.
    """
    first = aliased(Sample, first_of_trace(session, trace_id, samples + 1).subquery())
    of_request = (
        select(
            first.request_id,
            first.capture_id,
            Model.name.label("model"),
            func.array_remove(func.array_agg(first.span_id.distinct()), None).label("span_ids"),
            # The same for all samples of a capture, but for what a worker of before stored without it.
            func.min(first.role).label("role"),
            func.count().label("samples"),
            func.min(first.captured_at).label("first_captured_at"),
            func.max(first.captured_at).label("last_captured_at"),
        )
        .join(Model, Model.id == first.model_id)
        .group_by(first.request_id, first.capture_id, Model.name)
        .subquery()
    )
    found = of_request.c
    order = (found.first_captured_at, found.request_id, found.model, found.capture_id)
    # Over all requests of the trace: PostgreSQL limits what it returns, not what they are worked out of.
    figures = (func.count().over(), func.sum(found.samples).over())
    rows = session.execute(select(of_request, *figures).order_by(*order).limit(limit)).all()
    total, read = rows[0][-2:] if rows else (0, 0)
    return TracedRequests(total, [TracedRequest(*row[:-2]) for row in rows], read > samples)


def first_of_trace(session: Session, trace_id: str, at_most: int) -> Select[Sample]:
    """Return the query for the first samples of the trace, in their days alone."""
    days = func.subtext_days_of_trace(trace_id, at_most).table_valued(*_DAYS_OF_TRACE)
    times = [at for day in session.execute(select(days)) for at in day]
    of_trace = select(Sample).where(Sample.trace_id == trace_id, among(Sample.captured_at, times))
    return of_trace.order_by(Sample.captured_at, Sample.id).limit(at_most)


def get_request(
    session: Session,
    request_id: str,
    limits: Limits,
    after: Position | None = None,
    capture_id: uuid.UUID | None = None,
) -> View | None:
    """Return a page of what is stored under the id, newest capture first; None when nothing is.

    With ``capture_id`` that capture alone, if it came under the id.

    What it reads is bounded by ``limits``, however many requests share the id.
    """
    found = names.list_captures(session, request_id, after, limits.captures + 1, capture_id)
    page = found[: limits.captures]
    is_all = after is None and capture_id is None and len(found) == len(page)
    total = len(page) if is_all else names.count_captures(session, request_id, limits.counted)
    if not total:
        return None
    views = list_views(session, page, limits)
    last = page[-1] if len(found) > limits.captures else None
    return View(request_id, total, Page(views, Position(last.captured_at, last.capture) if last else None))


def list_views(session: Session, page: Sequence[RequestName], limits: Limits) -> list[CaptureView]:
    """Return the captures of these names, each with figures of the first so many of its samples.

    All captures with an identity together: how many there are makes no more statements.
    """
    query = select(Model.id, Model.name).where(Model.id.in_({name.model_id for name in page}))
    models = {identity: model for identity, model in session.execute(query)}  # noqa: C416  # rows, typed
    known = [name for name in page if name.capture_id is not None]
    groups = [[name] for name in page if name.capture_id is None]
    counted: dict[_Key, _Counted] = {}
    first: list[Sample] = []
    for group in [known, *groups] if known else groups:
        wanted = _Wanted(group)
        counted |= _count(session, wanted, limits.samples)
        if limits.with_rows:
            first += session.scalars(_first_samples(wanted, limits.samples))
    captures = {name.capture_id for name in known if name.capture_id is not None}
    samples = _grouped(first, lambda sample: sample)
    readings = _grouped(explanations.list_of_samples(session, first), lambda one: one.sample)
    of_captures = flags.list_of_captures(session, captures) if captures else []
    flagged = _grouped(of_captures, lambda one: one.flag)
    tested = discoveries.list_of_captures(session, captures) if captures else []
    tests = _grouped(tested, lambda one: one.test)  # of before are not tested
    views = []
    for name in page:
        key, model = _key(name), models[name.model_id]
        found = counted.get(key, _Counted(None, 0, name.captured_at, Figures()))
        views.append(
            CaptureView(
                Capture(
                    name.capture_id, name.request_id, model, found.role, found.total, found.captured_at
                ),
                found.figures,
                [SampleView(sample, model) for sample in samples[key]],
                readings[key],
                flags.list_of_capture(session, name) if name.capture_id is None else flagged[key],
                tests[key],
            )
        )
    return views


_Key = tuple[uuid.UUID | None, uuid.UUID, str]


class _Counted(NamedTuple):
    """Figures of all samples of a capture, and of the first of them."""

    role: str | None
    total: int
    captured_at: dt.datetime
    figures: Figures


def _key(row: RequestName | Sample | Flag | RequestTest) -> _Key:
    """Return by what a capture's rows are told from those of others."""
    return (row.capture_id, row.model_id, row.request_id if row.capture_id is None else "")


def _grouped(
    found: Iterable[T], row_of: Callable[[T], Sample | Flag | RequestTest]
) -> defaultdict[_Key, list[T]]:
    """Return what was found by the capture that its row is of, in the order in which it was found."""
    groups: defaultdict[_Key, list[T]] = defaultdict(list)
    for one in found:
        groups[_key(row_of(one))].append(one)
    return groups


class _Wanted:
    """Captures with an identity, or one of before there were any."""

    def __init__(self, names_: Sequence[RequestName]) -> None:
        self.keys = {(name.capture_id, name.model_id): _key(name) for name in names_}
        """By what tells them apart here."""
        if names_[0].capture_id is None:
            self.samples: Sequence[ColumnElement[Any]] = names.is_of_capture(Sample, names_[0])
            self.readings: Sequence[ColumnElement[Any]] = ()
        else:  # in the days of these captures alone
            times = [name.captured_at for name in names_]
            self.samples = (
                Sample.capture_id.in_([name.capture_id for name in names_]),
                near_any(Sample.captured_at, times),
            )
            self.readings = (near_any(Explanation.captured_at, times),)


def _count(session: Session, wanted: _Wanted, limit: int) -> dict[_Key, _Counted]:
    """Return figures of these captures: PostgreSQL aggregates them, and loads no row for it."""
    capture = (Sample.capture_id, Sample.model_id)
    first = (
        select(
            *capture,
            Sample.id,
            Sample.reason,
            Sample.inclusion_probability,
            func.min(Sample.role).over(partition_by=capture).label("any_role"),
            func.count().over(partition_by=capture).label("total"),
            func.min(Sample.captured_at).over(partition_by=capture).label("earliest"),
            _number_in_capture(),
        )
        .where(*wanted.samples)
        .subquery()
        .c
    )
    reading = (
        select(func.bool_or(Explanation.verified).label("is_verified"))  # null where there is none
        .where(Explanation.sample_id == first.id, *wanted.readings)
        .lateral()
    )
    keys = (first.capture_id, first.model_id, first.any_role, first.total, first.earliest, first.reason)
    query = (
        select(
            *keys,
            func.count(),
            func.min(first.inclusion_probability),
            func.max(first.inclusion_probability),
            func.count(reading.c.is_verified),
            func.count().filter(reading.c.is_verified),
        )
        .outerjoin(reading, true())
        .where(first.number <= limit)
        .group_by(*keys)
    )
    found: dict[_Key, _Counted] = {}
    for capture_id, model_id, role, total, at, *of_reason, explained, verified in session.execute(query):
        key = wanted.keys.get((capture_id, model_id))
        if key is not None:
            before = found[key].figures if key in found else Figures()
            figures = before.with_reason(ReasonFigures(*of_reason), explained, verified)
            found[key] = _Counted(role, total, at, figures)
    return found


def _first_samples(wanted: _Wanted, limit: int) -> Select[Sample]:
    """Return the query for the first so many samples of each capture."""
    numbered = select(Sample, _number_in_capture()).where(*wanted.samples).subquery()
    sample = aliased(Sample, numbered)
    query = select(sample).where(numbered.c.number <= limit)
    return query.order_by(sample.layer, sample.position, sample.id)


def _number_in_capture() -> Label[int]:
    capture = (Sample.capture_id, Sample.model_id)
    order = (Sample.layer, Sample.position, Sample.id)
    return func.row_number().over(partition_by=capture, order_by=order).label("number")
