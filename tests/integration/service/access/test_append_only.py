"""An entry of the access log stays as it was written, whoever comes."""
# ruff: noqa: S608  # the statements are made of our columns' names

import uuid

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RestrictViolation
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.store import migrate
from service.store.access.tables import MAX_SUBJECTS, AccessEntry, AccessSubject, Action, SubjectKind
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
OF_SUBJECTS = (
    "INSERT INTO access_subjects SELECT id, false, at, id, tenant_id FROM access_log",
    "UPDATE access_subjects SET entry_id = gen_random_uuid()",
    "DELETE FROM access_subjects",
    "TRUNCATE access_subjects",
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


def enter(sessions: Sessions) -> tuple[uuid.UUID, list[uuid.UUID], uuid.UUID]:
    """Enter a reading of two explanations of one capture, then a question about the first."""
    ids, capture = [uuid.uuid4(), uuid.uuid4()], uuid.uuid4()
    subjects = Subjects(kind=SubjectKind.EXPLANATION, ids=[*ids, ids[0]], captures=[capture])
    with sessions.begin() as session:
        shown = add_entry(session, Entry(action=Action.READ_TEXT, operation="x", subjects=subjects))
        asked = {"subject": str(ids[0])}
        add_entry(session, Entry(action=Action.LOG_READ, operation="list_access_log", details=asked))
    return shown, ids, capture


@pytest.mark.parametrize("statement", OF_SUBJECTS)
def test_what_entries_name_is_written_by_the_access_log_alone(
    database_url: str, sessions: Sessions, statement: str
) -> None:
    enter(sessions)

    for mode in ("origin", "replica"):
        with psycopg.connect(database_url) as connection:
            connection.execute(f"SET session_replication_role = {mode}".encode())
            with pytest.raises(RestrictViolation, match="rows of access_subjects follow access_log"):
                connection.execute(statement.encode())


def test_what_entries_name_follows_them_whatever_tenant_is_named(
    database_url: str, sessions: Sessions
) -> None:
    shown, (first, second), capture = enter(sessions)

    def named() -> set[tuple[uuid.UUID, bool]]:
        with sessions() as session:
            rows = session.scalars(select(AccessSubject)).all()
            entries = {one.id: (one.at, one.tenant_id) for one in session.scalars(select(AccessEntry))}
            assert all(entries[one.entry_id] == (one.at, one.tenant_id) for one in rows)
            return {(one.subject_id, one.was_asked) for one in rows}

    assert named() == {(first, False), (second, False), (capture, False), (first, True)}

    with psycopg.connect(database_url) as connection:
        # As a superuser meets every row: another tenant's name leaves none behind.
        connection.execute("SELECT set_config('subtext.tenant', %s, false)", [str(uuid.uuid4())])
        connection.execute("SET subtext.erasing = 'on'")
        connection.execute("UPDATE access_log SET subject_ids = %s WHERE id = %s", [[second], shown])
        connection.execute("UPDATE access_log SET details = '{}' WHERE action = 'log_read'")

    assert named() == {(second, False), (capture, False)}


def test_no_login_makes_a_trigger_of_its_own_that_writes_what_entries_name(
    reader_url: str, writer_url: str, keeper_url: str
) -> None:
    for url in (reader_url, writer_url, keeper_url):
        for function in ("access_log_add_subjects", "access_log_remove_subjects"):
            with psycopg.connect(url) as connection:
                connection.execute("CREATE TEMP TABLE mine (id uuid)")
                with pytest.raises(InsufficientPrivilege):
                    connection.execute(
                        f"CREATE TRIGGER mine AFTER INSERT ON mine"
                        f" FOR EACH ROW EXECUTE FUNCTION {function}()".encode()
                    )


def test_entries_of_before_are_found_by_what_they_name_even_if_that_was_interrupted(
    database_url: str, sessions: Sessions
) -> None:
    migrate.downgrade(database_url, "0053")
    shown, ids, capture = enter(sessions)
    migrate.upgrade(database_url)
    # As one leaves it that was killed before it was done.
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP FUNCTION access_subjects_refuse_change() CASCADE")
        connection.execute("DELETE FROM access_subjects WHERE was_asked OR subject_id = %s", [capture])
        connection.execute("UPDATE alembic_version SET version_num = '0053'")

    migrate.upgrade(database_url)

    with sessions() as session:
        found = session.scalars(select(AccessSubject).where(~AccessSubject.was_asked)).all()
        assert {(one.subject_id, one.entry_id) for one in found} == {
            (one, shown) for one in (*ids, capture)
        }
        asked = select(AccessSubject.subject_id).where(AccessSubject.was_asked)
        assert session.scalars(asked).all() == ids[:1]
