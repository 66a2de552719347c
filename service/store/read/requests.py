"""Everything that is stored under one request id: one capture, or several that share it."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.read import explanations, flags
from service.store.tables import Model, Sample


class SampleView(NamedTuple):
    """One sample and its model's name."""

    sample: Sample
    model: str


class Capture(NamedTuple):
    """One engine request that was sampled, at one model."""

    capture_id: uuid.UUID | None
    """None: all that was stored under the request id before captures had an identity."""
    model_id: uuid.UUID
    model: str
    samples_total: int
    first_captured_at: dt.datetime


class CaptureView(NamedTuple):
    """One capture with the first of its samples and everything that is known about those."""

    capture: Capture
    samples: Sequence[SampleView]
    explanations: Sequence[explanations.View]
    flags: Sequence[flags.View]


class View(NamedTuple):
    """What is stored under one request id. ``captures_total`` counts all, ``captures`` holds the newest."""

    request_id: str
    captures_total: int
    captures: Sequence[CaptureView]


class Limits(NamedTuple):
    """How much an answer lists: clients may send any number of requests with the same id."""

    captures: int
    samples: int
    """Of each capture."""


class TracedRequest(NamedTuple):
    """One request of a trace at one model."""

    request_id: str
    capture_id: uuid.UUID | None
    model: str
    span_ids: list[str]  # distinct; of before captures, a reused request id may have come from several
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


def get_request(session: Session, request_id: str, limits: Limits) -> View | None:
    """Return what is stored under the id, newest capture first; None when nothing is."""
    captures = (
        select(
            Sample.capture_id,
            Sample.model_id,
            Model.name.label("model"),
            func.count().label("samples_total"),
            func.min(Sample.captured_at).label("first_captured_at"),
        )
        .join(Model, Model.id == Sample.model_id)
        .where(Sample.request_id == request_id)
        .group_by(Sample.capture_id, Sample.model_id, Model.name)
        .subquery()
    )
    total = session.scalar(select(func.count()).select_from(captures)) or 0
    if not total:
        return None
    order = (captures.c.first_captured_at.desc(), captures.c.model, captures.c.capture_id)
    listed = session.execute(select(captures).order_by(*order).limit(limits.captures))
    found = [Capture(**row) for row in listed.mappings()]
    views = [_get_capture(session, request_id, capture, limits.samples) for capture in found]
    return View(request_id, total, views)


def _get_capture(session: Session, request_id: str, capture: Capture, limit: int) -> CaptureView:
    query = (
        select(Sample)
        .where(
            Sample.request_id == request_id,
            Sample.capture_id == capture.capture_id,  # None becomes IS NULL
            Sample.model_id == capture.model_id,
        )
        .order_by(Sample.layer, Sample.position, Sample.id)
        .limit(limit)
    )
    samples = [SampleView(sample, capture.model) for sample in session.scalars(query)]
    return CaptureView(
        capture,
        samples,
        explanations.list_of_samples(session, [view.sample.id for view in samples]),
        flags.list_of_capture(session, capture.model_id, capture.capture_id, request_id),
    )
