"""Everything that is stored under one request id: one capture, or several that share it."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session, aliased

from service.store.days import near_any
from service.store.read import discoveries, explanations, flags, names
from service.store.read.page import Page, Position
from service.store.tables import Flag, Model, RequestName, RequestTest, Sample


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


class CaptureView(NamedTuple):
    """One capture with the first of its samples and everything that is known about those."""

    capture: Capture
    samples: Sequence[SampleView]
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
    first = aliased(
        Sample,
        select(Sample)
        .where(Sample.trace_id == trace_id)
        .order_by(Sample.captured_at, Sample.id)
        .limit(samples + 1)
        .subquery(),
    )
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
    named = RequestName.name.in_(names.names_of(request_id))
    counted = select(RequestName.capture).where(named).limit(limits.counted).subquery()
    total = session.scalar(select(func.count()).select_from(counted)) or 0
    if not total:
        return None
    found = names.list_captures(session, request_id, after, limits.captures + 1, capture_id)
    page = found[: limits.captures]
    views = list_views(session, page, limits.samples)
    last = page[-1] if len(found) > limits.captures else None
    return View(request_id, total, Page(views, Position(last.captured_at, last.capture) if last else None))


def list_views(session: Session, page: Sequence[RequestName], samples: int) -> list[CaptureView]:
    """Return the captures of these names, each with the first so many of its samples.

    All captures with an identity together: how many there are makes no more statements.
    """
    query = select(Model.id, Model.name).where(Model.id.in_({name.model_id for name in page}))
    models = {identity: model for identity, model in session.execute(query)}  # noqa: C416  # rows, typed
    known = [name for name in page if name.capture_id is not None]
    found = _first_samples(session, known, samples) if known else {}
    for name in page:
        if name.capture_id is None:
            found[_key(name)] = _first_samples_of_before(session, name, samples)
    of_samples = explanations.list_of_samples(
        session, [sample for first in found.values() for sample in first.samples]
    )
    captures = {name.capture_id for name in known if name.capture_id is not None}
    of_captures = flags.list_of_captures(session, captures) if captures else []
    tests = discoveries.list_of_captures(session, captures) if captures else []
    views = []
    for name in page:
        key = _key(name)
        first = found.get(key, _First(None, 0, name.captured_at, []))
        ids = {sample.id for sample in first.samples}
        views.append(
            CaptureView(
                Capture(
                    name.capture_id,
                    name.request_id,
                    models[name.model_id],
                    first.role,
                    first.total,
                    first.captured_at,
                ),
                [SampleView(sample, models[name.model_id]) for sample in first.samples],
                [one for one in of_samples if one.sample.id in ids],
                flags.list_of_capture(session, name)
                if name.capture_id is None
                else [one for one in of_captures if _key(one.flag) == key],
                [one for one in tests if _key(one.test) == key],  # of before are not tested
            )
        )
    return views


class _First(NamedTuple):
    """The first samples of a capture, and figures of all of them."""

    role: str | None
    total: int
    captured_at: dt.datetime
    samples: list[Sample]


def _key(row: RequestName | Sample | Flag | RequestTest) -> tuple[uuid.UUID | None, uuid.UUID, str]:
    """Return by what a capture's rows are told from those of others."""
    return (row.capture_id, row.model_id, row.request_id if row.capture_id is None else "")


def _first_samples(
    session: Session, page: Sequence[RequestName], limit: int
) -> dict[tuple[uuid.UUID | None, uuid.UUID, str], _First]:
    """Return the first samples by capture, looked for in the days of these captures alone."""
    of_page = Sample.capture_id.in_([name.capture_id for name in page])
    near_page = near_any(Sample.captured_at, [name.captured_at for name in page])
    rows = session.execute(_numbered(limit, of_page, near_page))
    found: dict[tuple[uuid.UUID | None, uuid.UUID, str], _First] = {}
    for one, role, total, at in rows:
        found.setdefault(_key(one), _First(role, total, at, [])).samples.append(one)
    return found


def _first_samples_of_before(session: Session, name: RequestName, limit: int) -> _First:
    rows = session.execute(_numbered(limit, *names.is_of_capture(Sample, name))).all()
    role, total, at = rows[0][1:] if rows else (None, 0, name.captured_at)
    return _First(role, total, at, [row[0] for row in rows])


def _numbered(limit: int, *wanted: ColumnElement[Any]) -> Select[Sample, str | None, int, dt.datetime]:
    """Return the query for the first so many samples of each capture, with figures of all of its."""
    capture = (Sample.capture_id, Sample.model_id)
    order = (Sample.layer, Sample.position, Sample.id)
    numbered = (
        select(
            Sample,
            func.min(Sample.role).over(partition_by=capture).label("any_role"),
            func.count().over(partition_by=capture).label("total"),
            func.min(Sample.captured_at).over(partition_by=capture).label("earliest"),
            func.row_number().over(partition_by=capture, order_by=order).label("number"),
        )
        .where(*wanted)
        .subquery()
    )
    sample, figures = aliased(Sample, numbered), numbered.c
    query = select(sample, figures.any_role, figures.total, figures.earliest)
    return query.where(figures.number <= limit).order_by(sample.layer, sample.position, sample.id)
