"""Everything that is stored about one request of the audited model."""

import datetime as dt
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


class View(NamedTuple):
    """One request. ``samples_total`` counts all samples, ``samples`` holds the first of them."""

    request_id: str
    samples_total: int
    samples: Sequence[SampleView]
    explanations: Sequence[explanations.View]
    flags: Sequence[flags.View]


class TracedRequest(NamedTuple):
    """One request of a trace at one model."""

    request_id: str
    model: str
    span_ids: list[str]  # distinct: a reused request id may have come from several
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
            Model.name.label("model"),
            func.array_remove(func.array_agg(Sample.span_id.distinct()), None).label("span_ids"),
            func.count().label("samples"),
            func.min(Sample.captured_at).label("first_captured_at"),
            func.max(Sample.captured_at).label("last_captured_at"),
        )
        .join(Model, Model.id == Sample.model_id)
        .where(Sample.trace_id == trace_id)
        .group_by(Sample.request_id, Model.name)
        .subquery()
    )
    total = session.scalar(select(func.count()).select_from(of_trace)) or 0
    order = (of_trace.c.first_captured_at, of_trace.c.request_id, of_trace.c.model)
    rows = session.execute(select(of_trace).order_by(*order).limit(limit))
    return TracedRequests(total, [TracedRequest(**row) for row in rows.mappings()])


def get_request(session: Session, request_id: str, limit: int) -> View | None:
    """Return the request with its first ``limit`` samples, None when no sample of it is stored.

    Clients choose request ids, and one that repeats its id may gather any number of samples;
    hence the limit.
    """
    counted = select(func.count()).select_from(Sample).where(Sample.request_id == request_id)
    total = session.scalar(counted) or 0
    if not total:
        return None
    query = (
        select(Sample, Model.name)
        .join(Model, Model.id == Sample.model_id)
        .where(Sample.request_id == request_id)
        .order_by(Model.name, Sample.layer, Sample.position)
        .limit(limit)
    )
    samples = [SampleView(*row) for row in session.execute(query)]
    return View(
        request_id=request_id,
        samples_total=total,
        samples=samples,
        explanations=explanations.list_of_samples(session, [view.sample.id for view in samples]),
        flags=flags.list_of_request(session, request_id),
    )
