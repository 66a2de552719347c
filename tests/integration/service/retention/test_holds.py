"""Legal holds: what each covers, who may lift one, and that nothing of them is ever changed."""

import datetime as dt
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg.errors import CheckViolation, ForeignKeyViolation, RestrictViolation, UniqueViolation
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.retention import holds, placing
from service.store.access.tables import AccessEntry
from service.store.evidence.rows import list_rows
from service.store.retention.tables import LiftStep
from service.store.tables import Flag, Incident, RequestTest, Sample
from service.store.tenants import scope
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
DAY = dt.timedelta(days=1)
TRACE = "a" * 32


@pytest.fixture
def session(sessions: Sessions) -> Iterator[Session]:
    """One transaction of the default tenant, which nobody commits."""
    with sessions() as made:
        scope.set_tenant(made, scope.DEFAULT_ID)
        yield made


def plant(session: Session, audited: seed.Audited) -> None:
    """Store four captures, on two days: `first` has two samples and a flag, the others one sample each."""
    for position, concept in enumerate((None, "deception")):
        seed.add_explanation(
            session,
            audited,
            request_id="first",
            request_names=("named",),
            position=position,
            concept=concept,
            trace_id=TRACE,
            subject=seed.SUBJECT,
        )
    seed.add_incident(session, seed.add_flag(session, audited, request_id="first", concept="weapons"))
    seed.add_window(session, audited, ["first"], ["second"])
    seed.add_explanation(session, audited, request_id="second", concept="weapons")
    seed.add_explanation(session, audited, request_id="old", capture_id=None)
    seed.add_explanation(session, audited, request_id="later", captured_at=seed.START + DAY)


def covered(session: Session) -> set[str]:
    return set(session.scalars(select(Sample.request_id).where(holds.covers())))


CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({"model": "tiny"}, {"first", "second", "old", "later"}),
    ({"model": "other"}, set()),
    ({"captured_to": seed.START + DAY}, {"first", "second", "old"}),
    ({"captured_from": seed.START + DAY}, {"later"}),
    ({"captured_from": seed.START, "captured_to": seed.START + DAY}, {"first", "second", "old"}),
    ({"request": "first"}, {"first"}),
    ({"request": "named"}, {"first"}),
    ({"request": "old"}, {"old"}),
    ({"trace_id": TRACE}, {"first"}),
    ({"subject": seed.SUBJECT}, {"first"}),
    ({"concept": "deception"}, {"first"}),
    ({"concept": "weapons"}, {"first", "second"}),
    ({"concept": "weapons", "request": "second"}, {"second"}),
    ({"concept": "weapons", "captured_from": seed.START + DAY}, set()),
]


@pytest.mark.parametrize(("criteria", "expected"), CASES)
def test_a_hold_covers_whole_captures_that_fit_all_of_its_criteria(
    session: Session, criteria: dict[str, Any], expected: set[str]
) -> None:
    seed.add_model(session, "other")
    audited = seed.add_model(session)
    plant(session, audited)
    assert covered(session) == set()

    seed.add_hold(session, **criteria)

    assert covered(session) == expected
    is_first = "first" in expected
    for table, condition in (
        (Flag, holds.covers_standing(Flag)),
        (Incident, holds.covers_standing(Incident)),
        (RequestTest, holds.covers_standing(RequestTest)),
    ):
        found = set(session.scalars(select(table.request_id).where(condition)))
        assert ("first" in found, found <= expected) == (is_first, True), table


def test_a_hold_of_a_capture_covers_it_alone_and_none_of_another_tenant(session: Session) -> None:
    audited = seed.add_model(session)
    plant(session, audited)
    seed.add_hold(session, capture_id=seed.capture_of(audited, "second"))

    assert covered(session) == {"second"}
    with scope.meanwhile(session, uuid.uuid4()):
        assert holds.list_reaching(session, None, seed.START, seed.START + DAY) == []
    session.connection().exec_driver_sql(
        "UPDATE samples SET tenant_id = gen_random_uuid() WHERE request_id = 'second'"
    )
    assert covered(session) == set()


def test_a_hold_reaches_the_periods_and_models_that_it_may_cover(session: Session) -> None:
    audited, other = seed.add_model(session), seed.add_model(session, "other")
    hold = seed.add_hold(session, model="tiny", captured_from=seed.START, captured_to=seed.START + DAY)

    def reached(model: uuid.UUID | None, days: int) -> bool:
        start = seed.START + days * DAY
        return hold in holds.list_reaching(session, model, start, start + DAY)

    assert [reached(audited.model.id, days) for days in (-1, 0, 1)] == [False, True, False]
    assert (reached(None, 0), reached(other.model.id, 0)) == (True, False)


def test_one_key_asks_and_another_confirms(
    client: TestClient, headers_for: Callable[..., Headers], sessions: Sessions
) -> None:
    with sessions.begin() as session:
        plant(session, seed.add_model(session))
    one, other = (headers_for("holds:read", "holds:write") for _ in range(2))
    asked = {"scope": {"model": "tiny"}, "reason": "a case", "reference": "case 7"}

    placed = client.post("/v1/legal-holds", json=asked, headers=one).json()
    path = f"/v1/legal-holds/{placed['id']}/lift"

    def lift(headers: Headers) -> tuple[int, str]:
        answer = client.post(path, json={"reason": "over"}, headers=headers)
        return answer.status_code, answer.json().get("state") or answer.json()["code"]

    assert (placed["state"], placed["reference"], placed["lifts"]) == ("in_force", "case 7", [])
    assert lift(one) == (200, "lift_asked")
    assert lift(one) == (409, "other_key_needed")
    with sessions() as session:
        assert covered(session) == {"first", "second", "old", "later"}
    assert lift(other) == (200, "lifted")
    assert lift(other) == (409, "already_lifted")
    with sessions() as session:
        assert covered(session) == set()
        written = session.scalars(select(AccessEntry).order_by(AccessEntry.seq)).all()
        of_hold = [
            row for part in list_rows(session, scope.DEFAULT_ID) for row in part if "hold" in row.kind
        ]
    assert [(entry.operation, [*map(str, entry.subject_ids)]) for entry in written] == [
        ("place_legal_hold", [placed["id"]]),
        *[("lift_legal_hold", [placed["id"]])] * 2,
    ]
    assert sorted(row.kind for row in of_hold) == ["legal_hold", "legal_hold_lift", "legal_hold_lift"]
    assert all(row.commitments for row in of_hold)


def test_the_listing_tells_which_holds_were_in_force_at_a_time(
    client: TestClient, headers_for: Callable[..., Headers], sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        first = seed.add_hold(session, model=audited.model.name)
    with sessions.begin() as session:
        second = seed.add_hold(session, request="chat-1")
    for _ in LiftStep:
        with sessions.begin() as session:
            view = placing.get_hold(session, first)
            assert view is not None
            placing.lift(session, view, "over", seed.add_actor(session))
    with sessions() as session:
        view = placing.get_hold(session, first)
        assert view is not None
        placed_at, lifted_at = view.hold.placed_at, view.lifts[-1].at
    headers = headers_for("holds:read")

    def listed(**params: Any) -> list[str]:
        answer = client.get("/v1/legal-holds", params=params, headers=headers)
        return [item["id"] for item in answer.json()["items"]]

    now = {"at": (lifted_at + DAY).isoformat()}
    assert listed() == listed(**now) == [str(second)]
    assert listed(**now, with_lifted="true") == [str(second), str(first)]
    assert listed(at=(lifted_at - dt.timedelta(microseconds=1)).isoformat()) == [str(second), str(first)]
    assert listed(at=placed_at.isoformat()) == [str(first)]
    assert listed(at=(placed_at - DAY).isoformat()) == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "empty_scope"),
        ({"model": "nobody's"}, "unknown_model"),
        ({"captured_from": "2026-11-24T00:00:00Z", "captured_to": "2026-11-23T00:00:00Z"}, "empty_range"),
        ({"subject": "s"}, "wrong_form"),
    ],
)
def test_a_scope_that_is_none_is_refused(
    client: TestClient, admin: Headers, given: dict[str, Any], code: str
) -> None:
    answer = client.post("/v1/legal-holds", json={"scope": given, "reason": "a case"}, headers=admin)

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


def test_the_database_itself_wants_two_keys_and_the_order_of_their_steps(
    sessions: Sessions, database_url: str, reader_url: str
) -> None:
    with sessions.begin() as session:
        one, other = seed.add_actor(session), seed.add_actor(session)
        seed.add_model(session)
        hold = seed.add_hold(session, one, model="tiny")

    def insert(url: str, step: str, before: str | None, key: uuid.UUID | None, tenant: uuid.UUID) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(tenant)])
            connection.execute(
                "INSERT INTO legal_hold_lifts (id, hold_id, step, step_before, reason, key_id, key_name)"
                " VALUES (gen_random_uuid(), %s, %s, %s, 'over', %s, 'k')",
                [hold, step, before, key],
            )

    own = scope.DEFAULT_ID
    for url in (reader_url, database_url):
        with pytest.raises(ForeignKeyViolation):
            insert(url, "confirmed", "asked", other.key_id, own)
        for before in (None, "confirmed"):
            with pytest.raises(CheckViolation):
                insert(url, "confirmed", before, other.key_id, own)
        with pytest.raises(ForeignKeyViolation):
            insert(url, "asked", None, one.key_id, uuid.uuid4())
    insert(reader_url, "asked", None, one.key_id, own)
    for url in (reader_url, database_url):
        with pytest.raises(UniqueViolation, match="key_id"):
            insert(url, "confirmed", "asked", one.key_id, own)
    insert(reader_url, "confirmed", "asked", other.key_id, own)


@pytest.mark.parametrize("table", ["legal_holds", "legal_hold_lifts"])
def test_nobody_changes_or_deletes_a_hold(database_url: str, table: str) -> None:
    changes = (f"UPDATE {table} SET reason = ''", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE")  # noqa: S608
    for mode in ("origin", "replica"):
        for change in changes:
            with psycopg.connect(database_url) as connection:
                connection.execute(f"SET session_replication_role = {mode}".encode())
                with pytest.raises(RestrictViolation, match="only ever added"):
                    connection.execute(change.encode())


def test_a_hold_waits_for_who_is_removing_rows_and_keeps_the_next_waiting(sessions: Sessions) -> None:
    placed = threading.Event()

    def place() -> None:
        with sessions.begin() as session:
            scope.set_tenant(session, scope.DEFAULT_ID)
            seed.add_hold(session, request="first")
        placed.set()

    with sessions.begin() as session:
        plant(session, seed.add_model(session))
    with sessions.begin() as removing, sessions.begin() as beside:
        for session in (removing, beside):
            scope.set_tenant(session, scope.DEFAULT_ID)
            holds.freeze(session)
        thread = threading.Thread(target=place)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not removing.connection().exec_driver_sql(waiting).scalar_one():
            assert not placed.is_set()
        assert covered(removing) == set()
    thread.join()
    with sessions() as session:
        assert covered(session) == {"first"}
