"""Periods of the audit's own records: the access log, canaries and webhook messages."""

import datetime as dt
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg.errors import RestrictViolation
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from service.retention import decisions, periods, record_run, run
from service.retention.classes import RetentionClass
from service.retention.pace import Pace
from service.store.access.tables import AccessEntry, AccessSubject, Action
from service.store.access.write import Entry, add_entry
from service.store.canary.tables import CanaryRun
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope
from service.store.retention.tables import DeletionCertificate, Records, RetentionRun
from service.store.tables import CanaryFlag, CanaryReading, IncidentEvent, WebhookDelivery, WebhookMessage
from service.store.tenants import scope
from service.store.triage import Actor
from tests.integration.service import seed
from tests.support.erasing import Log, plant

Headers = dict[str, str]
Sessions = sessionmaker[Session]
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
OLD, NEW = NOW - 40 * DAY, NOW - 20 * DAY
FAST = Pace(rows=2, pause_seconds=0.0)


@pytest.fixture
def log(sessions: Sessions, tmp_path: Path) -> Log:
    return Log(sessions, tmp_path)


def set_periods(sessions: Sessions, **days: int | None) -> None:
    """Set them by kind of records; `readings` are those of the tenant."""
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        for name, period in days.items():
            seed.add_period(session, period, records=None if name == "readings" else Records(name))


def read_at(sessions: Sessions, *times: dt.datetime) -> list[uuid.UUID]:
    """Enter readings of text as of those times, with their entries in the log, before all else."""
    found = []
    for at in times:
        with sessions.begin() as session:
            scope.set_tenant(session, scope.DEFAULT_ID)
            _let_it_be(session, f"'{at.isoformat()}'")
            found.append(add_entry(session, Entry(action=Action.READ_TEXT, operation="list_explanations")))
            _let_it_be(session, "clock_timestamp()")
    return found


def _let_it_be(session: Session, default: str) -> None:
    for table in ("access_log", "log_pending"):
        session.connection().exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN at SET DEFAULT {default}")


def entries(sessions: Sessions) -> set[uuid.UUID]:
    with sessions() as session:
        return set(session.scalars(select(AccessEntry.id)))


def add_canary(session: Session, audited: seed.Audited, at: dt.datetime) -> None:
    """Store one reading, one flag and one run of a canary, as of that time."""
    of_both = {"decoder_id": audited.decoder.id, "nonce": "n", "capture_id": uuid.uuid4(), "layer": 20}
    session.add_all(
        [
            CanaryReading(
                sample_id=uuid.uuid4(), model_id=audited.model.id, position=1, captured_at=at, text="t",
                fve=0.4, verified=True, concepts=[], **of_both,
            ),
            CanaryFlag(
                concept="deception", positions_matched=2, positions_required=2, status="lead",
                rule_is_calibrated=False, stored_at=at, **of_both,
            ),
            CanaryRun(
                id=uuid.uuid4(), model="tiny", concept="deception", kind="positive", outcome="flagged",
                ended_at=at,
            ),
        ]
    )  # fmt: skip


def add_message(session: Session, audited: seed.Audited, at: dt.datetime, state: str) -> uuid.UUID:
    """Store an incident whose one message was delivered or waits, as of that time; return the event."""
    incident = seed.add_incident(session, seed.add_flag(session, audited, request_id=f"{state} {at}"))
    event = session.scalars(select(IncidentEvent.id).where(IncidentEvent.incident_id == incident.id)).one()
    session.execute(update(WebhookMessage).where(WebhookMessage.event_id == event).values(created_at=at))
    delivery = WebhookDelivery(
        event_id=event, destination="pager", state=state, attempts=1, next_attempt_at=at, created_at=at
    )
    session.add(delivery)
    return event


def test_entries_go_when_no_reading_is_left_that_they_may_tell_about(
    sessions: Sessions, log: Log, client: TestClient, admin: Headers
) -> None:
    *old, new = read_at(sessions, *(OLD + DAY * number for number in range(3)), NEW)
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        plant(session, "reading", at=OLD - DAY)
    set_periods(sessions, readings=30, access_log=30)

    [waits_for_its_log] = record_run.run(sessions, FAST)
    log.sign()
    [waits_for_readings] = record_run.run(sessions, FAST)
    run.run(sessions, FAST)
    [done] = record_run.run(sessions, FAST)
    log.sign()

    assert [waits_for_its_log.removed, waits_for_readings.removed, done.removed] == [0, 0, 3]
    left = entries(sessions)
    assert (left.isdisjoint(old), new in left) == (True, True)
    with sessions() as session:
        assert left.issuperset(session.scalars(select(AccessSubject.entry_id)))
    assert log.report().findings == []
    with sessions() as session:
        certificate = session.get_one(DeletionCertificate, done.certificate)
        assert certificate.document["records"] == "access_log"
        assert certificate.document["removed"] == {"access_entries": 3, "log_entries": 3}
        assert certificate.document["tombstones"] == {"count": 2, "log_entries": 3}
        before = session.get_one(RetentionRun, done.run).captured_before
    # Whoever asks is told that the log does not reach back any further.
    for path in ("/v1/access-log", "/v1/access-rights"):
        told = client.get(path, headers=admin).json()["removed_before"]
        assert dt.datetime.fromisoformat(told) == before


def test_a_hold_keeps_all_entries_since_its_beginning(sessions: Sessions, log: Log) -> None:
    before, since = read_at(sessions, OLD, OLD + 2 * DAY)
    set_periods(sessions, readings=30, access_log=30)
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        seed.add_hold(session, captured_from=OLD + DAY, captured_to=OLD + DAY * 2)
    log.sign()

    [outcome] = record_run.run(sessions, FAST)

    left = entries(sessions)
    assert (outcome.removed, before in left, since in left) == (1, False, True)


def test_only_a_run_of_the_access_log_deletes_entries_up_to_its_time(
    sessions: Sessions, database_url: str
) -> None:
    old, new = read_at(sessions, OLD, NEW)
    set_periods(sessions, readings=30, access_log=30, webhooks=30)
    begun = {}
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        for view in periods.list_in_force(session, dt.datetime.now(dt.UTC) + DAY):
            if view.version.records is not None:
                begun[view.version.records] = RetentionRun(
                    id=uuid.uuid4(),
                    records=view.version.records,
                    version_id=view.version.id,
                    captured_before=NOW - 31 * DAY,
                )
        session.add_all(begun.values())
    of_log, of_messages = (str(begun[one].id) for one in (Records.ACCESS_LOG, Records.WEBHOOKS))

    def delete(entry: uuid.UUID, setting: str) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
            connection.execute("SELECT set_config('subtext.retaining', %s, true)", [setting])
            connection.execute("DELETE FROM access_log WHERE id = %s", [entry])

    for entry, setting in ((old, ""), (old, "on"), (old, of_messages), (new, of_log)):
        with pytest.raises(RestrictViolation):
            delete(entry, setting)
    delete(old, of_log)
    assert entries(sessions).isdisjoint([old])


@pytest.mark.parametrize("records", [None, Records.ACCESS_LOG])
def test_a_period_that_a_longer_one_replaced_lets_nothing_go(
    sessions: Sessions, keeper_url: str, records: Records | None
) -> None:
    [old] = read_at(sessions, OLD)
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        model = seed.add_model(session).model.id if records is None else None
        version = seed.add_period(session, 30)
        if records is not None:
            version = seed.add_period(session, 30, records=records)
    begin = (
        "INSERT INTO retention_runs (id, model_id, records, version_id, captured_before)"
        " VALUES (%s, %s, %s, %s, now() - interval '30 days')"
    )
    bury = (
        "INSERT INTO log_tombstones (id, reason, authority, leaves, count, log_salt)"
        " VALUES (gen_random_uuid(), 'retention', %s, '{[1,2)}', 1, '')"
    )
    begun = uuid.uuid4()

    def do(statement: str, *values: object) -> None:
        with psycopg.connect(keeper_url) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
            connection.execute("SELECT set_config('subtext.retaining', %s, true)", [str(begun)])
            connection.execute(statement.encode(), values)

    do(begin, begun, model, records, version)
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        seed.add_period(session, 90, records=records)

    with pytest.raises(RestrictViolation):
        do(bury, begun)
    with pytest.raises(RestrictViolation):
        do("DELETE FROM access_log WHERE id = %s", old)
    do("UPDATE retention_runs SET finished_at = now() WHERE id = %s", begun)
    with pytest.raises(RestrictViolation):
        do(begin, uuid.uuid4(), model, records, version)


DELETIONS = {
    "access_log": ["DELETE FROM access_log WHERE at < now() - interval '31 days'"],
    "canary_readings": ["DELETE FROM canary_readings"],
    "canary_flags": ["DELETE FROM canary_flags"],
    "canary_runs": ["DELETE FROM canary_runs"],
    "webhook_messages": ["DELETE FROM webhook_deliveries", "DELETE FROM webhook_messages"],
}
"""By what nobody deletes without a run of retention, how he would do it."""
RUN_OF = {
    "access_log": Records.ACCESS_LOG,
    "canary_readings": Records.CANARIES,
    "canary_flags": Records.CANARIES,
    "canary_runs": Records.CANARIES,
    "webhook_messages": Records.WEBHOOKS,
}


def delete_as_keeper(url: str, statements: Sequence[str], run_id: uuid.UUID | None = None) -> int:
    """Run them as the keeper with the run named, look at what waits for the commit, and undo it all."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        connection.execute("SELECT set_config('subtext.retaining', %s, true)", [str(run_id or "")])
        deleted = [connection.execute(statement.encode()).rowcount for statement in statements]
        # What is looked at in the end finds no other tenant's hold or event in place of the row's own.
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(uuid.uuid4())])
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        connection.rollback()
        return deleted[-1]


def begin_runs(sessions: Sessions) -> dict[Records, uuid.UUID]:
    """Begin a run of each kind of records whose period is set."""
    begun = {}
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        for view in periods.list_in_force(session, dt.datetime.now(dt.UTC) + DAY):
            if view.version.records is not None:
                made = RetentionRun(
                    id=uuid.uuid4(),
                    records=view.version.records,
                    version_id=view.version.id,
                    captured_before=NOW - 31 * DAY,
                )
                session.add(made)
                begun[Records(view.version.records)] = made.id
    return begun


def test_the_database_lets_records_go_by_a_run_of_their_own_alone_and_keeps_what_a_hold_may_be_about(
    sessions: Sessions, keeper_url: str
) -> None:
    read_at(sessions, OLD)
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        audited = seed.add_model(session)
        add_canary(session, audited, OLD)
        add_message(session, audited, OLD, "delivered")

    for statements in DELETIONS.values():
        with pytest.raises(RestrictViolation):
            delete_as_keeper(keeper_url, statements)
    set_periods(sessions, readings=30, access_log=30, canaries=30, webhooks=30)
    begun = begin_runs(sessions)
    for table in ("canary_readings", "canary_flags", "canary_runs"):
        with pytest.raises(RestrictViolation):
            delete_as_keeper(keeper_url, DELETIONS[table], begun[Records.ACCESS_LOG])
    with pytest.raises(RestrictViolation):  # a message would have been sent, and nobody could tell
        delete_as_keeper(keeper_url, DELETIONS["webhook_messages"][:1])
    assert [
        delete_as_keeper(keeper_url, statements, begun[RUN_OF[table]])
        for table, statements in DELETIONS.items()
    ] == [1] * len(DELETIONS)

    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        seed.add_hold(session, captured_from=OLD - DAY)
    for table, statements in DELETIONS.items():
        with pytest.raises(RestrictViolation):
            delete_as_keeper(keeper_url, statements, begun[RUN_OF[table]])


def test_the_database_lets_no_record_go_that_is_too_new_or_waits(
    sessions: Sessions, keeper_url: str
) -> None:
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        audited = seed.add_model(session)
        add_canary(session, audited, NEW)
        messages = ((OLD, "pending"), (NEW, "failed"))
        events = [add_message(session, audited, *one) for one in messages]
    set_periods(sessions, canaries=30, webhooks=30)
    begun = begin_runs(sessions)

    of_messages = [
        [f"{one} WHERE event_id = '{event}'" for one in DELETIONS["webhook_messages"]] for event in events
    ]
    of_canaries = [DELETIONS[one] for one in ("canary_readings", "canary_flags", "canary_runs")]
    for statements in (*of_messages, *of_canaries):
        with pytest.raises(RestrictViolation):
            delete_as_keeper(keeper_url, statements, begun[RUN_OF[statements[-1].split()[2]]])


def test_an_erasure_lets_canaries_of_its_capture_go_once_it_may_be_carried_out(
    sessions: Sessions, keeper_url: str
) -> None:
    of_both = [DELETIONS[one] for one in ("canary_readings", "canary_flags")]
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        add_canary(session, seed.add_model(session), OLD)
        [capture] = session.scalars(select(CanaryReading.capture_id))

    asks = Actor(uuid.UUID(int=9), "asks")

    def ask(identifier: uuid.UUID) -> decisions.Removal:
        with sessions.begin() as session:
            scope.set_tenant(session, scope.DEFAULT_ID)
            asked, _ = requests.ask(session, ErasureScope.CAPTURE, str(identifier), asks)
        return decisions.Removal(asked, "erasure")

    def confirm(removal: decisions.Removal) -> None:
        with sessions.begin() as session:
            scope.set_tenant(session, scope.DEFAULT_ID)
            seed.confirm(session, removal, scope.DEFAULT_ID)

    confirm(ask(uuid.uuid4()))
    waiting = ask(capture)
    with pytest.raises(RestrictViolation):  # of another capture, or not yet
        delete_as_keeper(keeper_url, of_both[0])
    confirm(waiting)
    assert [delete_as_keeper(keeper_url, one) for one in of_both] == [1, 1]


def test_canaries_and_settled_messages_go_by_their_own_periods(sessions: Sessions, log: Log) -> None:
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        audited = seed.add_model(session)
        for at in (OLD, NEW):
            add_canary(session, audited, at)
        events = [
            add_message(session, audited, at, state)
            for at, state in (
                (OLD, "delivered"),
                (OLD, "pending"),
                (NEW, "delivered"),
            )
        ]
    set_periods(sessions, canaries=30, webhooks=30)
    log.sign()

    outcomes = {one.records: one for one in record_run.run(sessions, FAST)}

    assert {records: one.removed for records, one in outcomes.items()} == {
        Records.CANARIES: 3,
        Records.WEBHOOKS: 2,
    }
    with sessions() as session:
        for table in (CanaryReading, CanaryFlag, CanaryRun):
            assert session.scalar(select(func.count()).select_from(table)) == 1
        for event in (WebhookMessage.event_id, WebhookDelivery.event_id):
            assert set(session.scalars(select(event))) == set(events[1:])


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"records": "access_log", "period_days": 364}, ("period_days", "below_readings")),
        ({"records": "canaries", "period_days": 182}, ("period_days", "below_readings")),
        ({"records": "webhooks", "period_days": 182}, ("period_days", "below_readings")),
        ({"records": "canaries", "period_days": 183, "model": "m"}, ("records", "of_no_model")),
        ({"records": "samples", "period_days": 183}, ("records", "literal_error")),
    ],
)
def test_a_period_of_records_is_no_shorter_than_what_they_tell_about_needs(
    client: TestClient, sessions: Sessions, admin: Headers, asked: dict[str, Any], problem: tuple[str, str]
) -> None:
    with sessions.begin() as session:
        seed.add_period(session, 365, retention_class=RetentionClass.AI_ACT)
    body = {"retention_class": "custom", "reason": "a duty", **asked}

    answer = client.post("/v1/retention", json=body, headers=admin)

    [error] = answer.json()["errors"]
    assert (answer.status_code, error["field"], error["code"]) == (422, *problem)
