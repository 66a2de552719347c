"""Everything that is stored of a trace, a page of its captures at a time."""

from typing import NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from service.store.read import names, requests
from service.store.read.page import Page, Position, older_than
from service.store.tables import RequestName, Sample


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
    first = (
        select(Sample)
        .where(Sample.trace_id == trace_id)
        .order_by(Sample.captured_at, Sample.id)
        .limit(samples + 1)
        .subquery()
    )
    read = session.scalar(select(func.count()).select_from(first)) or 0
    if not read:
        return None
    captured = select(first.c.request_id, first.c.capture_id, first.c.model_id).distinct().subquery()
    # Each capture has the request id of its samples among its names.
    named = (
        select(RequestName)
        .join(
            captured,
            and_(
                RequestName.name == captured.c.request_id,
                RequestName.model_id == captured.c.model_id,
                names.is_same_capture(RequestName.capture_id, captured.c.capture_id),
            ),
        )
        .subquery()
    )
    found = aliased(RequestName, named)
    query = select(found).order_by(found.captured_at.desc(), found.capture.desc())
    if after is not None:
        query = query.where(older_than(found.captured_at, found.capture, after))
    page = session.scalars(query.limit(limits.captures + 1)).all()
    views = requests.list_views(session, page[: limits.captures], limits.samples)
    last = page[limits.captures - 1] if len(page) > limits.captures else None
    return View(
        session.scalar(select(func.count()).select_from(named)) or 0,
        read > samples,
        Page(views, Position(last.captured_at, last.capture) if last else None),
    )
