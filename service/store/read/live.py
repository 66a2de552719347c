"""What is newest: bounded and by an index, because it is asked for again and again."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.incidents.lifecycle import CLOSED, State
from service.store.read import explanations
from service.store.tables import AnomalyWindow, Decoder, Incident, Model

LISTED_READINGS: Final = 25
LISTED_INCIDENTS: Final = 25
READINGS_OF_LAST: Final = dt.timedelta(hours=24)
"""Of a store that was given nothing since, all days would be looked into."""
TESTS_OF_LAST: Final = dt.timedelta(hours=24)
COVERAGE_OF_LAST: Final = dt.timedelta(minutes=15)
_UNDECIDED: Final = tuple(state for state in State if state not in CLOSED)


class Undecided(NamedTuple):
    """How many incidents of one model and state nobody has decided on."""

    model: str
    state: str
    incidents: int
    versions: int
    """Sum of their versions: it grows with whatever happens to one of them."""


class Changed(NamedTuple):
    """One undecided incident, by what it is found by."""

    id: uuid.UUID
    model: str
    request_id: str
    capture_id: uuid.UUID | None
    layer: int
    state: str
    version: int
    opened_at: dt.datetime
    updated_at: dt.datetime


class Tested(NamedTuple):
    """The requests of one model that were tested for being anomalies."""

    model: str
    windows: int
    requests: int
    discoveries: int


def count_tested(session: Session, since: dt.datetime) -> list[Tested]:
    """Return by model what was tested in windows that were closed since then."""
    sums = (func.sum(AnomalyWindow.requests), func.sum(AnomalyWindow.discoveries))
    query = (
        select(Model.name, func.count(), *sums)
        .select_from(AnomalyWindow)
        .join(Decoder, Decoder.id == AnomalyWindow.decoder_id)
        .join(Model, Model.id == Decoder.model_id)
        .where(AnomalyWindow.closed_at >= since)
        .group_by(Model.name)
        .order_by(Model.name)
    )
    return [Tested(*row) for row in session.execute(query)]


def list_readings(session: Session, since: dt.datetime) -> Sequence[explanations.View]:
    """Return the readings of the newest captures since then, newest first."""
    wanted = explanations.Filter(captured_after=since)
    return explanations.list_explanations(session, wanted, None, LISTED_READINGS).items


def count_undecided(session: Session) -> list[Undecided]:
    """Return the undecided incidents by model and state."""
    query = (
        select(Model.name, Incident.state, func.count(), func.sum(Incident.version))
        .join(Model, Model.id == Incident.model_id)
        .where(Incident.state.in_(_UNDECIDED))
        .group_by(Model.name, Incident.state)
        .order_by(Model.name, Incident.state)
    )
    return [Undecided(*row) for row in session.execute(query)]


def list_changed(session: Session) -> list[Changed]:
    """Return the undecided incidents to which something happened last, newest first."""
    columns = (Incident.id, Model.name, Incident.request_id, Incident.capture_id, Incident.layer)
    query = (
        select(*columns, Incident.state, Incident.version, Incident.opened_at, Incident.updated_at)
        .join(Model, Model.id == Incident.model_id)
        .where(Incident.state.in_(_UNDECIDED))
        .order_by(Incident.updated_at.desc(), Incident.id.desc())
        .limit(LISTED_INCIDENTS)
    )
    return [Changed(*row) for row in session.execute(query)]
