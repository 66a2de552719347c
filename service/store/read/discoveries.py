"""Reading tests of requests: discoveries, and what came out for one capture."""

import datetime as dt
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session, defer

from service.store.read import names
from service.store.read.page import Page, Position, older_than
from service.store.tables import AnomalyWindow, Decoder, Incident, Model, RequestTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which discoveries to list; None means any. A request spans its first to its last capture."""

    model: str | None = None
    request_id: str | None = None  # any id that its client may have sent
    captured_after: dt.datetime | None = None  # the span ends at or after this
    captured_before: dt.datetime | None = None  # the span begins before this


class View(NamedTuple):
    """One test with its window, its decoder (``card`` not loaded), its model's name and its incident."""

    test: RequestTest
    window: AnomalyWindow
    decoder: Decoder
    model: str
    incident_id: uuid.UUID | None
    """Of a discovery's capture; None as long as no incident could be written."""


_Query = Select[RequestTest, AnomalyWindow, Decoder, str, uuid.UUID | None]


def list_discoveries(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[View]:
    """Return one page, newest tested first."""
    query = _narrowed(_joined().where(RequestTest.is_discovery), wanted)
    query = query.order_by(RequestTest.tested_at.desc(), RequestTest.id.desc())
    if after is not None:
        query = query.where(older_than(RequestTest.tested_at, RequestTest.id, after))
    views = [View(*row) for row in session.execute(query.limit(limit + 1))]
    page = views[:limit]
    last = page[-1].test if len(views) > limit else None
    return Page(page, Position(last.tested_at, last.id) if last else None)


def list_of_captures(session: Session, captures: Collection[uuid.UUID]) -> list[View]:
    """Return every test of captures with these identities, discovery or not, of all models, by layer."""
    query = _joined().where(RequestTest.capture_id.in_(captures))
    query = query.order_by(RequestTest.layer, RequestTest.id)
    return [View(*row) for row in session.execute(query)]


def find_of_incident(session: Session, incident: Incident) -> View | None:
    """Return the discovery that the incident has among its findings."""
    query = _joined().where(
        RequestTest.capture_id == incident.capture_id,
        RequestTest.model_id == incident.model_id,
        RequestTest.decoder_id == incident.decoder_id,
        RequestTest.layer == incident.layer,
        RequestTest.is_discovery,
    )
    row = session.execute(query).one_or_none()
    return None if row is None else View(*row)


def _joined() -> _Query:
    return (
        select(RequestTest, AnomalyWindow, Decoder, Model.name, Incident.id)
        .join(AnomalyWindow, AnomalyWindow.id == RequestTest.window_id)
        .join(Model, Model.id == RequestTest.model_id)
        .join(Decoder, Decoder.id == RequestTest.decoder_id)
        .outerjoin(
            Incident,
            and_(
                RequestTest.is_discovery,
                Incident.capture_id == RequestTest.capture_id,
                Incident.model_id == RequestTest.model_id,
                Incident.decoder_id == RequestTest.decoder_id,
                Incident.layer == RequestTest.layer,
            ),
        )
        .options(defer(Decoder.card, raiseload=True))
    )


def _narrowed(query: _Query, wanted: Filter) -> _Query:
    if wanted.model is not None:
        query = query.where(Model.name == wanted.model)
    if wanted.request_id is not None:
        query = query.where(names.is_of_request(RequestTest, wanted.request_id))
    if wanted.captured_after is not None:
        query = query.where(RequestTest.last_captured_at >= wanted.captured_after)
    if wanted.captured_before is not None:
        query = query.where(RequestTest.first_captured_at < wanted.captured_before)
    return query
