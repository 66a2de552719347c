"""What the store refuses of one tenant keeps no other tenant's incidents from being written."""

import uuid
from typing import Any

import psycopg.errors
import pytest
import sqlalchemy.exc
from prometheus_client import CollectorRegistry

from workers.consumer.metrics import WorkerMetrics
from workers.consumer.side.incident_repair import IncidentRepair
from workers.consumer.targets import Target


class Refusing:
    """Sessions of a store that refuses all with one error."""

    def __init__(self, error: psycopg.Error) -> None:
        self.asked = 0
        self._error = error

    def __call__(self) -> Any:
        self.asked += 1
        raise sqlalchemy.exc.DBAPIError.instance("SELECT", {}, self._error, psycopg.Error)


def repair_of(sessions: Any) -> IncidentRepair:
    targets = [
        Target(tenant=name, model_id=uuid.uuid4(), decoder_id=uuid.uuid4()) for name in ("acme", "bolt")
    ]
    metrics = WorkerMetrics(CollectorRegistry(), version="0")
    return IncidentRepair(sessions, lambda: targets, metrics, model="m", anomaly_p_value=None)


def test_the_next_tenant_is_looked_at_where_the_store_refuses_something_of_one() -> None:
    sessions = Refusing(psycopg.errors.CheckViolation("positions"))

    assert repair_of(sessions).step() == 0
    assert sessions.asked == 2


def test_a_store_that_is_away_is_asked_once() -> None:
    sessions = Refusing(psycopg.OperationalError("connection refused"))

    with pytest.raises(sqlalchemy.exc.OperationalError):
        repair_of(sessions).step()
    assert sessions.asked == 1
