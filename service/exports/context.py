"""What a bundle has beside rows of the log: coverage, configurations in force, states of incidents."""

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.api.routes import statement
from service.evidence.bundle.archive import written
from service.evidence.entry import plain
from service.store.base import values_of
from service.store.configuration.tables import (
    ConfigurationContent,
    ConfigurationPeriod,
    ConfigurationVersion,
)
from service.store.evidence.rows import Window
from service.store.tables import Decoder, Incident, IncidentEvent, Model


def coverage(session: Session, window: Window, model: str | None, now: dt.datetime) -> bytes:
    """Return the coverage statement of the period, as `GET /v1/coverage/statement` answers it."""
    asked = {"from": window.start, "to": window.end, "model": model}
    stated = statement.state(session, statement.StatementParameters.model_validate(asked), now)
    return written(stated.model_dump(mode="json"))


def configurations(session: Session, window: Window, model: str | None) -> Iterator[bytes]:
    """Yield, by model and begin, what each process ran in the period, whole where it is known."""
    row = ConfigurationPeriod
    query = (
        select(row, ConfigurationVersion.digest, ConfigurationContent.content)
        .join(ConfigurationVersion, ConfigurationVersion.id == row.version_id)
        .outerjoin(ConfigurationContent, ConfigurationContent.version_id == row.version_id)
        .where(row.began_at < window.end, row.last_seen_at >= window.start)
        .order_by(row.model, row.began_at, row.id)
    )
    if model is not None:
        query = query.where(row.model == model)
    for period, digest, content in session.execute(query):
        told = _told(values_of(period)) | {"digest": digest, "content": plain(content)}
        yield written(told)


def incidents(session: Session, window: Window) -> Iterator[bytes]:
    """Yield the incidents with events in the period, as they stand now, by id. No entry is of a state."""
    happened = select(IncidentEvent.incident_id).where(
        IncidentEvent.at >= window.start, IncidentEvent.at < window.end
    )
    query = select(Incident).where(Incident.id.in_(happened)).order_by(Incident.id)
    if window.model_id is not None:
        query = query.where(Incident.model_id == window.model_id)
    for one in session.scalars(query):
        yield written(_told(values_of(one)))


def decoders(session: Session, window: Window) -> list[dict[str, Any]]:
    """Return names and digests of the decoders that there were by the end of the period."""
    query = select(Decoder.name, Decoder.digest).where(Decoder.created_at < window.end)
    return [
        {"name": name, "digest": digest} for name, digest in session.execute(query.order_by(Decoder.id))
    ]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in row.items() if name != "tenant_id"}


def model_id_of(session: Session, name: str) -> uuid.UUID | None:
    """Return the id of a model by its served name; None when none of it is met."""
    return session.scalar(select(Model.id).where(Model.name == name))
