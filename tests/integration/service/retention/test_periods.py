"""For how long rows are kept: who sets it, within which bounds, and what was in force when."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg.errors import CheckViolation, RestrictViolation
from sqlalchemy.orm import Session, sessionmaker

from service.retention import periods
from service.store.tables import Model
from service.store.tenants import scope
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
DAY = dt.timedelta(days=1)
COLUMNS = (
    "retention_class, floor_days, ceiling_days, period_days, in_force_from, reason, key_name, id, key_id"
)


def test_versions_follow_each_other_and_a_models_own_comes_before_its_tenants(
    client: TestClient, sessions: Sessions, headers_for: Callable[..., Headers]
) -> None:
    with sessions.begin() as session:
        models = [seed.add_model(session, name).model for name in ("tiny", "other")]
        ids = {model.name: model.id for model in models}
    operator, reader = headers_for("coverage:read", "retention:write"), headers_for("coverage:read")
    other = headers_for("coverage:read", "retention:write")
    to_come = dt.datetime.now(dt.UTC) + DAY

    def put(**asked: Any) -> tuple[int, dict[str, Any]]:
        answer = client.post("/v1/retention", json={"reason": "a duty", **asked}, headers=operator)
        if answer.status_code == 200:  # each is shorter than what counts, and waits
            path = f"/v1/retention/versions/{answer.json()['id']}/decision"
            confirmed = client.post(
                path, json={"decision": "confirmed", "reason": "so be it"}, headers=other
            )
            assert confirmed.json()["decision"]["decision"] == "confirmed"
        return answer.status_code, answer.json()

    def in_force(at: dt.datetime | None = None) -> list[tuple[str | None, int | None]]:
        params = {} if at is None else {"at": at.isoformat()}
        items = client.get("/v1/retention", params=params, headers=reader).json()["items"]
        return [(item["model"], item["period_days"]) for item in items]

    assert in_force() == []
    assert put(retention_class="ai_act", period_days=183)[0] == 200
    assert put(retention_class="custom", period_days=9, model="tiny", floor_days=2)[0] == 200
    assert put(retention_class="custom", period_days=1, in_force_from=to_come.isoformat())[0] == 200
    refused = put(retention_class="ai_act", period_days=182)
    past = put(retention_class="custom", period_days=1, in_force_from="2026-11-23T00:00:00Z")

    assert in_force() == [(None, 183), ("tiny", 9)]
    assert in_force(to_come) == [(None, 1), ("tiny", 9)]
    assert in_force(to_come - 2 * DAY) == []
    assert (refused[0], refused[1]["errors"][0]["code"]) == (422, "below_floor")
    assert (past[0], past[1]["errors"][0]["code"]) == (422, "in_the_past")
    listed = client.get("/v1/retention/versions", headers=reader).json()["items"]
    assert [item["period_days"] for item in listed] == [1, 9, 183]
    with sessions() as session:
        views = periods.list_in_force(session, dt.datetime.now(dt.UTC))
        counting = periods.periods_of(views, session.query(Model).all())
        assert {model: one.period_days for model, one in counting.items()} == {
            ids["tiny"]: 9,
            ids["other"]: 183,
        }


def test_by_sql_nobody_sets_a_period_outside_of_its_class_or_for_the_past(
    sessions: Sessions, database_url: str
) -> None:
    with sessions.begin() as session:
        actor = seed.add_actor(session)

    def insert(values: str) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
            connection.execute(
                f"INSERT INTO retention_versions ({COLUMNS}) VALUES ({values}, 'r', 'k', %s, %s)".encode(),  # noqa: S608
                [uuid.uuid4(), actor.key_id],
            )

    for values in (
        "'ai_act', 182, NULL, 400, now()",
        "'ai_act', NULL, NULL, 400, now()",
        "'ai_act', 183, NULL, 182, now()",
        "'hipaa', 183, NULL, 400, now()",
        "'minimal', NULL, NULL, 10, now()",
        "'minimal', NULL, 30, NULL, now()",
        "'minimal', NULL, 30, 31, now()",
        "'custom', NULL, NULL, 0, now()",
        "'other', NULL, NULL, 1, now()",
        "'custom', NULL, NULL, 1, now() - interval '1 second'",
    ):
        with pytest.raises(CheckViolation):
            insert(values)
    insert("'ai_act', 183, NULL, 183, now()")
    with psycopg.connect(database_url) as connection, pytest.raises(RestrictViolation):
        connection.execute("UPDATE retention_versions SET period_days = 1")
