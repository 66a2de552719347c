"""Everything that is stored under one request id: one capture, or several that share it."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.read import explanations, flags, names
from service.store.read.page import Page, Position, older_than
from service.store.tables import Model, RequestName, Sample


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
    samples: int  # of this trace
    first_captured_at: dt.datetime
    last_captured_at: dt.datetime


class TracedRequests(NamedTuple):
    """Requests of a trace. ``total`` counts all, ``requests`` holds the first captured of them."""

    total: int
    requests: list[TracedRequest]


def list_of_trace(session: Session, trace_id: str, limit: int) -> TracedRequests:
    """Return the first ``limit`` requests of a trace that have a stored sample, by their first capture.

    Clients choose trace ids, and one may send any number of requests with the same; hence the limit.
    """
    of_trace = (
        select(
            Sample.request_id,
            Sample.capture_id,
            Model.name.label("model"),
            func.array_remove(func.array_agg(Sample.span_id.distinct()), None).label("span_ids"),
            # The same for all samples of a capture, but for what a worker of before stored without it.
            func.min(Sample.role).label("role"),
            func.count().label("samples"),
            func.min(Sample.captured_at).label("first_captured_at"),
            func.max(Sample.captured_at).label("last_captured_at"),
        )
        .join(Model, Model.id == Sample.model_id)
        .where(Sample.trace_id == trace_id)
        .group_by(Sample.request_id, Sample.capture_id, Model.name)
        .subquery()
    )
    total = session.scalar(select(func.count()).select_from(of_trace)) or 0
    order = (of_trace.c.first_captured_at, of_trace.c.request_id, of_trace.c.model, of_trace.c.capture_id)
    rows = session.execute(select(of_trace).order_by(*order).limit(limit))
    return TracedRequests(total, [TracedRequest(**row) for row in rows.mappings()])


def get_request(
    session: Session, request_id: str, limits: Limits, after: Position | None = None
) -> View | None:
    """Return a page of what is stored under the id, newest capture first; None when nothing is.

    What it reads is bounded by ``limits``, however many requests share the id.
    """
    named = RequestName.name.in_(names.names_of(request_id))
    counted = select(RequestName.capture).where(named).limit(limits.counted).subquery()
    total = session.scalar(select(func.count()).select_from(counted)) or 0
    if not total:
        return None
    query = (
        select(RequestName, Model.name)
        .join(Model, Model.id == RequestName.model_id)
        .where(named)
        .order_by(RequestName.captured_at.desc(), RequestName.capture.desc())
    )
    if after is not None:
        query = query.where(older_than(RequestName.captured_at, RequestName.capture, after))
    rows = session.execute(query.limit(limits.captures + 1)).all()
    page = rows[: limits.captures]
    views = [_get_capture(session, name, model, limits.samples) for name, model in page]
    last = page[-1][0] if len(rows) > limits.captures else None
    return View(request_id, total, Page(views, Position(last.captured_at, last.capture) if last else None))


def _get_capture(session: Session, name: RequestName, model: str, limit: int) -> CaptureView:
    # The figures are of all samples: PostgreSQL limits what it returns, not what they are worked out of.
    figures = (func.min(Sample.role).over(), func.count().over(), func.min(Sample.captured_at).over())
    query = (
        select(Sample, *figures)
        .where(*names.is_of_capture(Sample, name))
        .order_by(Sample.layer, Sample.position, Sample.id)
        .limit(limit)
    )
    rows = session.execute(query).all()
    role, total, first = rows[0][1:] if rows else (None, 0, name.captured_at)
    samples = [SampleView(row[0], model) for row in rows]
    return CaptureView(
        Capture(name.capture_id, name.request_id, model, role, total, first),
        samples,
        explanations.list_of_samples(session, [view.sample.id for view in samples]),
        flags.list_of_capture(session, name),
    )
