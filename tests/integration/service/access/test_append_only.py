"""An entry of the access log stays as it was written, whoever comes."""
# ruff: noqa: S608  # the statements are made of our columns' names

import uuid

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RestrictViolation
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.store.access.tables import MAX_SUBJECTS, AccessEntry, Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.engine import create_engine, session_factory
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tenants.scope import set_tenant

Sessions = sessionmaker[Session]
UPSERT = (
    "INSERT INTO access_log (id, action, operation, result)"
    " SELECT id, action, operation, result FROM access_log ON CONFLICT (id) DO UPDATE SET result = 'done'"
)
CHANGES = (
    "UPDATE access_log SET purpose = 'audit'",
    "DELETE FROM access_log",
    "DELETE FROM access_log WHERE false",
    "TRUNCATE access_log",
    UPSERT,
)


@pytest.fixture
def written(reader_url: str) -> uuid.UUID:
    engine = create_engine(reader_url)
    with session_factory(engine).begin() as session:
        set_tenant(session, tenant_id(DEFAULT_TENANT))  # without whom a reader may add nothing
        identity = add_entry(session, Entry(action=Action.LOG_READ, operation="list_access_log"))
    engine.dispose()
    return identity


@pytest.mark.parametrize("statement", CHANGES)
def test_the_owner_and_the_servers_administrator_change_nothing(
    database_url: str, written: uuid.UUID, statement: str
) -> None:
    for mode in ("origin", "replica"):
        with psycopg.connect(database_url) as connection:
            connection.execute(f"SET session_replication_role = {mode}".encode())
            with pytest.raises(RestrictViolation, match="only ever added"):
                connection.execute(statement.encode())

    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT id, purpose, result FROM access_log").fetchall()
    assert kept == [(written, None, "done")]


@pytest.mark.parametrize(
    "change",
    [
        "subject_ids = '{}', result = 'missing_scope'",
        "subject_ids = subject_ids || gen_random_uuid()",
        "details = '{\"limit\": 7}'",
        "log_salt = '\\x00'",
    ],
)
def test_also_who_erases_can_only_make_an_entry_name_less(
    database_url: str, sessions: Sessions, change: str
) -> None:
    subjects = Subjects(kind=SubjectKind.EXPLANATION, ids=[uuid.UUID(int=1), uuid.UUID(int=2)])
    with sessions.begin() as session:
        entered = Entry(action=Action.READ_TEXT, operation="x", subjects=subjects, details={"limit": 5})
        add_entry(session, entered)

    with psycopg.connect(database_url) as connection:
        connection.execute("SET subtext.erasing = 'on'")
        with pytest.raises(RestrictViolation, match="only ids can be erased"):
            connection.execute(f"UPDATE access_log SET {change}".encode())
    with psycopg.connect(database_url) as connection:
        connection.execute("SET subtext.erasing = 'on'")
        connection.execute("UPDATE access_log SET subject_ids = subject_ids[:1], details = '{}'")
        with pytest.raises(RestrictViolation, match="only ever added"):
            connection.execute("DELETE FROM access_log")


def test_the_services_login_chooses_neither_time_nor_order_nor_login(
    reader_url: str, written: uuid.UUID
) -> None:
    assert written
    for column, value in (("at", "now()"), ("seq", "7"), ("database_login", "'somebody'")):
        with psycopg.connect(reader_url) as connection, pytest.raises(InsufficientPrivilege):
            connection.execute(
                f"INSERT INTO access_log (id, action, operation, result, {column}) OVERRIDING SYSTEM VALUE"
                f" VALUES (gen_random_uuid(), 'write', 'x', 'done', {value})".encode()
            )


def test_an_entry_says_when_by_whom_and_of_how_many_and_names_a_bounded_number(sessions: Sessions) -> None:
    ids = [uuid.uuid4() for _ in range(MAX_SUBJECTS + 5)]
    subjects = Subjects(kind=SubjectKind.EXPLANATION, ids=ids, captures=ids[:3])

    with sessions.begin() as session:
        add_entry(session, Entry(action=Action.READ_TEXT, operation="get_request", subjects=subjects))
        add_entry(session, Entry(action=Action.KEY_CHANGE, operation="key create"))
        first, second = session.scalars(select(AccessEntry).order_by(AccessEntry.seq))

        assert (first.subject_ids, first.subjects_total) == (ids[:MAX_SUBJECTS], MAX_SUBJECTS + 5)
        assert (first.capture_ids, first.captures_total) == (ids[:3], 3)
        assert (second.subject_ids, second.subjects_total, second.subject_kind) == ([], 0, None)
        assert first.seq < second.seq
        assert first.at <= second.at
        assert first.database_login
        assert first.tenant_id == tenant_id(DEFAULT_TENANT)
