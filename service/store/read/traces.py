"""Everything that is stored of a trace, a page of its captures at a time."""

import datetime as dt
import uuid
from typing import NamedTuple

from sqlalchemy import ARRAY, DateTime, String, Uuid, cast, column, func, select, true
from sqlalchemy.orm import Session, aliased

from service.store.days import REQUEST_LASTS, between, near_any
from service.store.identity import capture_key
from service.store.read import requests
from service.store.read.page import Page, Position, older_than
from service.store.tables import RequestName


class View(NamedTuple):
    """What is stored of a trace."""

    captures_total: int
    """How many of its captures have a sample among those that were read."""
    truncated: bool
    """The trace has more samples than are read: captures of later ones are left out."""
    captures: Page[requests.CaptureView]


def get_trace(
    session: Session,
    trace_id: str,
    limits: requests.Limits,
    after: Position | None = None,
    samples: int = requests.TRACED_SAMPLES,
) -> View | None:
    """Return a page of the captures of a trace, newest first; None when none is stored.

    It reads the first so many samples of the trace, by the time of their capture, to know its captures.
    Of each it shows all samples, up to the limit: a capture is one request, and so of one trace.
    """
    captured, read = _captured(session, trace_id, samples)
    if not captured:
        return None
    # Each capture has the request id of its samples among its names.
    place = func.unnest(
        cast([one.request_id for one in captured], ARRAY(String)),
        cast([one.capture for one in captured], ARRAY(Uuid)),
        cast([one.at for one in captured], ARRAY(DateTime(timezone=True))),
    ).table_valued(
        column("name", String), column("capture", Uuid), column("at", DateTime(timezone=True)), name="place"
    )
    place = place.render_derived()
    named = (
        select(RequestName)
        .where(
            RequestName.name == place.c.name,
            RequestName.capture == place.c.capture,
            between(RequestName.captured_at, place.c.at - REQUEST_LASTS, place.c.at + REQUEST_LASTS),
            near_any(RequestName.captured_at, [one.at for one in captured]),
        )
        .correlate(place)
        .offset(0)  # a fence: looked up for each capture, and not joined with all names of the days
        .lateral()
    )
    found = aliased(RequestName, named)
    query = select(found).select_from(place).join(named, true())
    query = query.order_by(found.captured_at.desc(), found.capture.desc())
    if after is not None:
        query = query.where(older_than(found.captured_at, found.capture, after))
    page = session.scalars(query.limit(limits.captures + 1)).all()
    views = requests.list_views(session, page[: limits.captures], limits)
    last = page[limits.captures - 1] if len(page) > limits.captures else None
    return View(
        len(captured),
        read > samples,
        Page(views, Position(last.captured_at, last.capture) if last else None),
    )


class _Captured(NamedTuple):
    """One capture of a trace: under which name it is stored, and when its first sample was captured."""

    request_id: str
    capture: uuid.UUID
    at: dt.datetime


def _captured(session: Session, trace_id: str, samples: int) -> tuple[list[_Captured], int]:
    """Return the captures that the trace's first samples are of, and how many samples were read."""
    first = requests.first_of_trace(session, trace_id, samples + 1).subquery()
    capture = (first.c.capture_id, first.c.model_id, first.c.request_id, first.c.tenant_id)
    figures = (func.min(first.c.captured_at), func.count())
    rows = session.execute(select(*capture, *figures).group_by(*capture)).all()
    captured = [
        _Captured(request_id, capture_key(capture_id, model_id, request_id, tenant), at)
        for capture_id, model_id, request_id, tenant, at, _ in rows
    ]
    return captured, sum(row[-1] for row in rows)
