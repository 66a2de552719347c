"""Nobody destroys alone: what was asked for waits, another confirms it, and whoever may hold objects."""

import datetime as dt
import uuid
from collections.abc import Callable

import psycopg
import pytest
import redis
from fastapi.testclient import TestClient
from psycopg.errors import (
    CheckViolation,
    ForeignKeyViolation,
    InsufficientPrivilege,
    RestrictViolation,
    UniqueViolation,
)
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.erasure.run import Swept, run
from service.retention.decisions import Removal
from service.store.erasure import requests
from service.store.erasure.tables import Erasure, ErasureScope, ErasureState
from service.store.retention.tables import RetentionVersion
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.triage import Actor
from tests.integration.service import seed
from tests.support.erasing import Log, plant

Headers = dict[str, str]
Sessions = sessionmaker[Session]
PURPOSE = {"Subtext-Purpose": "subject_request"}
DAY = dt.timedelta(days=1)


def decide(client: TestClient, path: str, decision: str, headers: Headers) -> tuple[int, str]:
    """Return the status, and the decision that is told or the error's code."""
    body = {"decision": decision, "reason": "looked at"}
    answer = client.post(f"{path}/decision", json=body, headers=headers)
    told = answer.json()
    return answer.status_code, told["decision"]["decision"] if "decision" in told else told["code"]


def count_samples(sessions: Sessions) -> int:
    with sessions() as session:
        return session.scalars(select(func.count()).select_from(Sample)).one()


def test_one_identity_erases_nothing_and_two_do_at_once(  # fixtures
    client: TestClient,
    sessions: Sessions,
    headers_for: Callable[..., Headers],
    streams: redis.Redis,
    log: Log,
) -> None:
    with sessions.begin() as session:
        plant(session, "evidence")
    log.sign()
    one, other = (headers_for("erasures:read", "erasures:write") for _ in range(2))
    body = {"scope": "request", "identifier": "evidence"}

    made = client.post("/v1/erasures", json=body, headers=one | PURPOSE).json()
    path = f"/v1/erasures/{made['id']}"
    until = dt.datetime.fromisoformat(made["objectable_until"])
    assert until - dt.datetime.fromisoformat(made["asked_at"]) == 3 * DAY
    assert run(sessions, streams, settle_seconds=0) == Swept(0, 0, 1)
    assert decide(client, path, "confirmed", one) == (409, "other_identity_needed")
    assert (run(sessions, streams, settle_seconds=0).waiting, count_samples(sessions)) == (1, 3)
    assert decide(client, path, "confirmed", other) == (200, "confirmed")
    assert decide(client, path, "objected", other) == (409, "not_waiting")
    for _ in range(3):
        log.sign()
        run(sessions, streams, settle_seconds=0)

    told = client.get(path, headers=one).json()
    assert (told["state"], told["decision"]["decision"], count_samples(sessions)) == (
        "done",
        "confirmed",
        0,
    )
    log.sign()
    assert log.report().findings == []


def test_whoever_may_hold_objects_and_nothing_is_erased(
    client: TestClient, sessions: Sessions, headers_for: Callable[..., Headers], streams: redis.Redis
) -> None:
    with sessions.begin() as session:
        plant(session, "evidence")
    asking = headers_for("erasures:read", "erasures:write")
    auditor, onlooker = headers_for("erasures:read", "holds:write"), headers_for("erasures:read")
    made = client.post("/v1/erasures", json={"scope": "tenant"}, headers=asking | PURPOSE).json()
    path = f"/v1/erasures/{made['id']}"

    assert decide(client, path, "objected", onlooker) == (403, "missing_scope")
    assert decide(client, path, "confirmed", auditor) == (403, "missing_scope")
    assert decide(client, path, "objected", auditor) == (200, "objected")
    assert decide(client, path, "confirmed", asking) == (409, "not_waiting")
    assert run(sessions, streams, settle_seconds=0) == Swept(0, 0, 0)

    told = client.get(path, headers=auditor).json()
    assert (told["state"], told["decision"]["decision"]) == ("cancelled", "objected")
    assert count_samples(sessions) == 3


def test_when_the_time_to_object_is_over_it_is_carried_out(
    sessions: Sessions, streams: redis.Redis, log: Log
) -> None:
    with sessions.begin() as session:
        plant(session, "somebody")
        erasure = seed.add_erasure(session)
    log.sign()
    assert run(sessions, streams, settle_seconds=0).waiting == 1

    pass_time(sessions, erasure)
    for _ in range(3):
        run(sessions, streams, settle_seconds=0)

    with sessions() as session:
        assert session.get_one(Erasure, erasure).state == ErasureState.DONE
    assert count_samples(sessions) == 0


def pass_time(sessions: Sessions, erasure: uuid.UUID) -> None:
    """Let the time to object be over, as only a superuser can who goes around the triggers."""
    with sessions.begin() as session:
        connection = session.connection()
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        earlier = "UPDATE erasures SET objectable_until = now() - interval '1 second' WHERE id = %s"
        connection.exec_driver_sql(earlier, (erasure,))


def test_a_tenant_waits_for_as_long_as_its_operator_says(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.connection().exec_driver_sql("UPDATE tenants SET objection_hours = 24")
        erasure = seed.add_erasure(session)

        row = session.get_one(Erasure, erasure, populate_existing=True)

        assert row.objectable_until == row.asked_at + DAY


def test_a_period_by_which_more_goes_waits_and_a_longer_one_does_not(
    client: TestClient, headers_for: Callable[..., Headers]
) -> None:
    one, other = (headers_for("coverage:read", "retention:write") for _ in range(2))
    holder = headers_for("coverage:read", "holds:write")

    def put(days: int | None, later: bool = False) -> dict[str, str | None]:  # noqa: FBT001, FBT002
        asked = {"retention_class": "custom", "period_days": days, "reason": "a duty"}
        if later:
            asked["in_force_from"] = (dt.datetime.now(dt.UTC) + DAY).isoformat()
        return dict(client.post("/v1/retention", json=asked, headers=one).json())

    def path(version: dict[str, str | None]) -> str:
        return f"/v1/retention/versions/{version['id']}"

    def in_force(after: dt.timedelta = dt.timedelta()) -> list[int | None]:
        at = {"at": (dt.datetime.now(dt.UTC) + after).isoformat()}
        items = client.get("/v1/retention", params=at, headers=one).json()["items"]
        return [item["period_days"] for item in items]

    first = put(400)
    assert (in_force(), in_force(4 * DAY)) == ([], [400])
    assert decide(client, path(first), "confirmed", one) == (409, "other_identity_needed")
    assert decide(client, path(first), "confirmed", other) == (200, "confirmed")
    shorter = put(10)
    assert (in_force(), in_force(4 * DAY)) == ([400], [10])
    assert decide(client, path(shorter), "objected", holder) == (200, "objected")
    assert in_force(4 * DAY) == [400]
    longer, for_good = put(500), put(None)
    assert [one["objectable_until"] for one in (longer, for_good)] == [None, None]
    assert in_force() == [None]
    # What is to come may be shorter than what is set until then.
    assert put(600, later=True)["objectable_until"] is not None


def insert_decision(url: str, erasure: uuid.UUID, decision: str, by: Actor, asked_by: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        connection.execute(
            "INSERT INTO removal_decisions (id, erasure_id, decision, asked_by, reason, key_id, key_name)"
            " VALUES (gen_random_uuid(), %s, %s, %s, 'r', %s, 'k')",
            [erasure, decision, asked_by, by.key_id],
        )


def test_the_database_itself_wants_somebody_else_and_one_decision_in_time(
    sessions: Sessions, database_url: str, reader_url: str
) -> None:
    with sessions.begin() as session:
        one, other = seed.add_actor(session), seed.add_actor(session)
        erasure, late = (requests.ask(session, ErasureScope.TENANT, None, one)[0] for _ in range(2))
    pass_time(sessions, late)

    for url in (reader_url, database_url):
        with pytest.raises(CheckViolation, match="other"):
            insert_decision(url, erasure, "confirmed", one, str(one.key_id))
        with pytest.raises(ForeignKeyViolation):  # as if somebody else had asked
            insert_decision(url, erasure, "confirmed", one, str(other.key_id))
        with pytest.raises(RestrictViolation):
            insert_decision(url, late, "objected", other, str(one.key_id))
    with psycopg.connect(reader_url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute("INSERT INTO erasures (objectable_until) VALUES (now())")
    with psycopg.connect(reader_url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute("UPDATE tenants SET objection_hours = 1")
    insert_decision(reader_url, erasure, "objected", other, str(one.key_id))
    with pytest.raises(UniqueViolation):
        insert_decision(database_url, erasure, "confirmed", other, str(one.key_id))
    with psycopg.connect(database_url) as connection, pytest.raises(RestrictViolation):
        connection.execute("DELETE FROM removal_decisions")


def test_the_database_itself_lets_nothing_be_removed_that_waits(
    sessions: Sessions, database_url: str, keeper_url: str
) -> None:
    with sessions.begin() as session:
        model = seed.add_model(session).model.id
        erasure = seed.add_erasure(session)
        version = seed.add_period(session, 30, is_confirmed=False)
        assert session.get_one(RetentionVersion, version, populate_existing=True).objectable_until
    bury = (
        "INSERT INTO log_tombstones (id, reason, authority, leaves, count, log_salt)"
        " VALUES (gen_random_uuid(), '{}', '{}', '{{[1,2)}}', 1, '')"
    )
    begin = (
        "INSERT INTO retention_runs (id, model_id, version_id, captured_before)"  # noqa: S608
        f" VALUES (gen_random_uuid(), '{model}', '{version}', now() - interval '30 days')"
    )

    for url in (keeper_url, database_url):
        for statement in (
            bury.format("erasure", erasure),
            bury.format("erasure", uuid.uuid4()),
            bury.format("retention", version),
            begin,
            "UPDATE erasures SET counts = '{\"samples\": 1}'",
            "UPDATE erasures SET identifier = 'another'",
            "UPDATE erasures SET state = 'done', identifier = NULL, finished_at = now()",
            "UPDATE erasures SET state = 'cancelled', identifier = NULL, finished_at = now()",
        ):
            with psycopg.connect(url) as connection:
                connection.execute(
                    "SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)]
                )
                with pytest.raises(RestrictViolation):
                    connection.execute(statement.encode())
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        for removal in (Removal(erasure, "erasure"), Removal(version, "retention")):
            seed.confirm(session, removal)
    with psycopg.connect(keeper_url) as connection:
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        connection.execute(bury.format("erasure", erasure).encode())
        connection.execute(begin.encode())
