import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import alembic.command
import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

from service.store import identity, migrate
from service.store.engine import create_engine, ping, with_database
from service.store.schema import METADATA
from tests.support.waiting import wait_until


def test_a_migrated_database_is_at_head_and_has_every_table(database_url: str) -> None:
    engine = create_engine(database_url)

    assert migrate.is_at_head(engine)
    assert set(METADATA.tables) <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_down_to_nothing_and_up_again_ends_at_head(database_url: str) -> None:
    engine = create_engine(database_url)

    migrate.downgrade(database_url, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert not migrate.is_at_head(engine)
    migrate.upgrade(database_url)

    assert migrate.is_at_head(engine)
    engine.dispose()


def test_autogenerate_finds_no_difference_between_tables_and_migrations(database_url: str) -> None:
    alembic.command.check(migrate.config(database_url))


FIRST_ROWS = """
    INSERT INTO models (id, name, d_model) VALUES (gen_random_uuid(), 'tiny', 8);
    INSERT INTO samples (id, model_id, request_id, layer, position, token_id, token_text, phase, norm,
                         inclusion_probability, reason, captured_at)
    SELECT gen_random_uuid(), id, 'chat-1', 20, 3, 7, 'a', 'decode', 1.0, 0.25, 'decode', now() FROM models;
    INSERT INTO coverage_minutes (minute, source, hop, model, counter, count)
    VALUES ('2026-11-23 05:00Z', 's', 'plugin', 'tiny', 'rows_sampled', 40);
"""
COVERAGE = "SELECT stratum, counter, count FROM coverage_minutes ORDER BY stratum"


def _rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def _execute(engine: Engine, statements: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statements)


def test_rows_of_the_first_revision_get_a_stratum_and_a_baseline_and_can_go_back(database_url: str) -> None:
    engine = create_engine(database_url)
    migrate.downgrade(database_url, "0001")
    _execute(engine, FIRST_ROWS)

    migrate.upgrade(database_url)

    kept = "SELECT stratum, inclusion_probability, baseline_probability, screen_scores FROM samples"
    assert _rows(engine, kept) == [("uniform", 0.25, 0.25, {})]
    assert _rows(engine, COVERAGE) == [("unknown", "rows_sampled", 40)]

    _execute(
        engine,
        "INSERT INTO coverage_minutes (minute, source, hop, model, stratum, counter, count)"
        " VALUES ('2026-11-23 05:00Z', 's', 'plugin', 'tiny', 'uniform', 'rows_sampled', 2)",
    )
    migrate.downgrade(database_url, "0001")

    assert _rows(engine, "SELECT counter, count FROM coverage_minutes") == [("rows_sampled", 42)]
    assert _rows(engine, "SELECT reason FROM samples") == [("decode",)]
    engine.dispose()


SECOND_ROWS = """
    INSERT INTO models (id, name, d_model) VALUES (gen_random_uuid(), 'tiny', 8);
    INSERT INTO decoders (id, model_id, name, digest, layer, fve_baseline, shuffled_fve_p95, calibration_n,
                          card)
    SELECT gen_random_uuid(), id, 'tiny-l20', 'digest', 20, 0.5, 0.02, 512, '{}' FROM models;
    INSERT INTO samples (id, model_id, request_id, layer, position, token_id, token_text, phase, norm,
                         stratum, inclusion_probability, baseline_probability, reason, screen_scores,
                         captured_at)
    SELECT gen_random_uuid(), models.id, 'chat-1', 20, position, 7, 'a', phase, 1.0, 'uniform', 0.25, 0.25,
           'decode', '{}', now()
    FROM models, (VALUES (3, 'prefill'), (4, 'decode')) AS chosen (position, phase);
    INSERT INTO explanations (id, sample_id, decoder_id, captured_at, text, well_formed, cosine, fve,
                              verified)
    SELECT gen_random_uuid(), samples.id, decoders.id, now(), 'a list', true, 0.9, 0.4, true
    FROM samples, decoders;
"""
EXPLAINED = (
    "SELECT phase, position_class, candidates, fve_beyond_token, claims, margin"
    " FROM explanations JOIN samples ON samples.id = sample_id ORDER BY position"
)


def _second(database_url: str) -> Engine:
    engine = create_engine(database_url)
    migrate.downgrade(database_url, "0002")
    _execute(engine, SECOND_ROWS)
    return engine


def test_explanations_of_the_second_revision_get_a_class_from_their_phase_and_can_go_back(
    database_url: str,
) -> None:
    engine = _second(database_url)

    migrate.upgrade(database_url)

    assert _rows(engine, EXPLAINED) == [
        ("prefill", "prompt", 1, None, None, None),
        ("decode", "answer", 1, None, None, None),
    ]
    assert _rows(engine, "SELECT verified_above, candidates FROM decoders") == [(None, 1)]

    migrate.downgrade(database_url, "0002")

    kept = "SELECT text, fve, verified FROM explanations"
    assert _rows(engine, kept) == [("a list", 0.4, True), ("a list", 0.4, True)]
    engine.dispose()


def test_samples_of_the_third_revision_have_no_trace_and_workers_of_then_can_go_on(
    database_url: str,
) -> None:
    engine = create_engine(database_url)
    migrate.downgrade(database_url, "0003")
    third_rows = FIRST_ROWS.replace(
        "inclusion_probability, reason, captured_at)",
        "inclusion_probability, reason, captured_at, stratum, baseline_probability, screen_scores)",
    ).replace("now() FROM models", "now(), 'uniform', 0.25, '{}' FROM models")
    third_rows = third_rows[: third_rows.index("INSERT INTO coverage_minutes")]
    _execute(engine, third_rows)

    migrate.upgrade(database_url)
    _execute(engine, third_rows[third_rows.index("INSERT INTO samples") :].replace("20, 3", "20, 4"))

    assert _rows(engine, "SELECT trace_id, span_id, role FROM samples") == [(None, None, None)] * 2

    migrate.downgrade(database_url, "0003")
    migrate.upgrade(database_url)

    assert _rows(engine, "SELECT position FROM samples ORDER BY position") == [(3,), (4,)]
    engine.dispose()


INVALIDATE = {
    "ix_samples_trace_id_captured_at_id": "UPDATE pg_index SET indisvalid = false"
    " WHERE indexrelid = 'ix_samples_trace_id_captured_at_id'::regclass",
    "ix_samples_capture_id": "UPDATE pg_index SET indisvalid = false"
    " WHERE indexrelid = 'ix_samples_capture_id'::regclass",
}
FORGET = {
    "0006": "UPDATE alembic_version SET version_num = '0006'",
    "0011": "UPDATE alembic_version SET version_num = '0011'",
}
ARE_VALID = (
    "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " WHERE indrelid = 'samples'::regclass"
    " AND (relname LIKE 'ix_samples_trace_id%' OR relname = 'ix_samples_capture_id') ORDER BY relname"
)
INDEX_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_samples_capture_id')"


def test_an_index_is_built_while_another_migrator_waits_and_a_writer_is_at_work(database_url: str) -> None:
    engine = create_engine(database_url)
    migrate.downgrade(database_url, "0006")
    # Processes, because Alembic keeps the migration under way in its modules.
    code = "import sys; from service.store import migrate; migrate.upgrade(sys.argv[1])"
    command = [sys.executable, "-c", code, database_url]
    with engine.connect() as writer:
        writer.execute(text("LOCK TABLE samples IN ROW EXCLUSIVE MODE"))
        migrators = [subprocess.Popen(command)]
        wait_until("the index waits", lambda: _rows(engine, INDEX_IS_VALID) == [(False,)], 60)
        migrators.append(subprocess.Popen(command))
        time.sleep(6)  # past the lock timeout of other revisions, and until the second migrator waits
        running = [migrator.poll() for migrator in migrators]
        writer.rollback()
        ended = [migrator.wait(60) for migrator in migrators]

    assert (running, ended) == ([None, None], [0, 0])
    assert _rows(engine, INDEX_IS_VALID) == [(True,)]
    engine.dispose()


@pytest.mark.parametrize(
    ("index", "before", "revision"),
    [("ix_samples_capture_id", "0006", "0007"), ("ix_samples_trace_id_captured_at_id", "0011", "0012")],
)
def test_an_index_that_an_interrupted_migration_left_invalid_is_built_again(
    database_url: str, index: str, before: str, revision: str
) -> None:
    engine = create_engine(database_url)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        _execute(engine, INVALIDATE[index])
        migrate.downgrade(database_url, revision)
        _execute(engine, FORGET[before])

        migrate.upgrade(database_url)

        valid = [("ix_samples_capture_id", True), ("ix_samples_trace_id_captured_at_id", True)]
        assert _rows(engine, ARE_VALID) == valid


SEVENTH_ROWS = """
    INSERT INTO models (id, name, d_model) VALUES (gen_random_uuid(), 'tiny', 8);
    INSERT INTO samples (id, model_id, request_id, capture_id, layer, position, token_id, token_text, phase,
                         norm, stratum, inclusion_probability, baseline_probability, reason, screen_scores,
                         captured_at)
    SELECT gen_random_uuid(), models.id, 'chat-' || mod(number / 4, 3),
           CASE WHEN mod(number, 2) = 0 THEN CAST(lpad(to_hex(number / 4), 32, '0') AS uuid) END,
           20, number, 7, 'a', 'decode', 1.0, 'uniform', 0.25, 0.25, 'decode', '{}',
           timestamptz '2026-11-23 05:00Z' + (50000 - number) * interval '1 s'
    FROM models, generate_series(1, 50000) AS number;
"""
NAMELESS = """
    SELECT count(*) FROM samples WHERE NOT EXISTS (
        SELECT FROM request_names
        WHERE name = samples.request_id AND request_id = samples.request_id AND model_id = samples.model_id
        AND coalesce(CAST(capture_id AS text), '') = coalesce(CAST(samples.capture_id AS text), '')
        AND captured_at <= samples.captured_at)
"""
"""An equality of both, without nulls: PostgreSQL hashes that, and compares nothing pair by pair."""
DOUBLE = """
    SELECT count(*) - count(DISTINCT (model_id, capture_id, request_id)) FROM request_names
"""


def test_captures_of_the_seventh_revision_are_named_once_even_if_that_was_interrupted(
    database_url: str,
) -> None:
    engine = create_engine(database_url)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        migrate.downgrade(database_url, "0007")
        _execute(engine, SEVENTH_ROWS)

        migrate.upgrade(database_url, "0009")

        assert _rows(engine, NAMELESS) == _rows(engine, DOUBLE) == [(0,)]
        named = "SELECT name, capture, captured_at FROM request_names ORDER BY name, capture"
        first = _rows(engine, named)
        _execute(engine, "DELETE FROM request_names WHERE name <> 'chat-1'")
        _execute(engine, "UPDATE alembic_version SET version_num = '0008'")
        migrate.upgrade(database_url)

        assert _rows(engine, named) == first
        of_before = (
            "SELECT capture, model_id, request_id FROM request_names"
            " WHERE capture_id IS NULL ORDER BY request_id"
        )
        keys = [(identity.capture_name(None, *row[1:]), *row[1:]) for row in _of_uuids(engine, of_before)]
        assert len(keys) == 3
        assert keys == _rows(engine, of_before)


def _of_uuids(engine: Engine, query: str) -> list[tuple[uuid.UUID, uuid.UUID, str]]:
    with engine.connect() as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(text(query))]


FOURTEENTH_ROWS = """
    INSERT INTO models (id, name, d_model) VALUES (gen_random_uuid(), 'a', 8), (gen_random_uuid(), 'b', 8);
    INSERT INTO decoders (id, model_id, name, digest, layer, fve_baseline, shuffled_fve_p95, candidates,
                          calibration_n, card)
    SELECT gen_random_uuid(), id, name, name, 20, 0.5, 0.02, 1, 512, '{}' FROM models;
    INSERT INTO concept_versions (digest, name, version, definition)
    VALUES ('d1', 'harm', 1, '{}'), ('d2', 'harm', 2, '{}'), ('d3', 'bombs', 1, '{}');
    INSERT INTO flags (id, model_id, decoder_id, request_id, layer, concept, concepts_digest,
                       concept_digest, severity, positions_matched, positions_required, positions_verified,
                       first_captured_at, last_captured_at)
    SELECT gen_random_uuid(), model_id, id, 'r', 20, 'harm', 'file', 'd1', 'info', 2, 2, 2, now(), now()
    FROM decoders WHERE name = 'a';
    INSERT INTO incidents (id, model_id, decoder_id, request_id, layer, severity, state, version,
                           first_captured_at, last_captured_at)
    SELECT gen_random_uuid(), model_id, id, name, 20, 'critical', 'open', 1, now(), now() FROM decoders;
    INSERT INTO incident_events (id, incident_id, version, kind, to_state, severity, findings)
    SELECT gen_random_uuid(), id, 1, 'opened', 'open', 'critical',
           CASE request_id WHEN 'a' THEN '[{"false_positive_rate": 0.01}]'::jsonb
           ELSE '[{"false_positive_rate": null}]'::jsonb END
    FROM incidents;
    INSERT INTO webhook_messages (event_id, routed_at) SELECT id, now() FROM incident_events;
    INSERT INTO webhook_deliveries (event_id, destination, state, attempts, next_attempt_at)
    SELECT id, 'on-call', 'pending', 0, now() FROM incident_events;
"""
PRIORITIES = (
    "SELECT request_id, priority FROM webhook_deliveries"
    " JOIN incident_events ON event_id = incident_events.id JOIN incidents ON incidents.id = incident_id"
    " ORDER BY request_id"
)
USED = "SELECT models.name, digest FROM model_concepts JOIN models ON models.id = model_id ORDER BY 1, 2"


def test_what_waits_in_the_fourteenth_revision_gets_a_priority_and_what_was_used_its_model(
    database_url: str,
) -> None:
    engine = create_engine(database_url)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        migrate.downgrade(database_url, "0014")
        _execute(engine, FOURTEENTH_ROWS)

        migrate.upgrade(database_url, "0015")

        assert _rows(engine, PRIORITIES) == [("a", 0), ("b", 1)]
        assert _rows(engine, USED) == [("a", "d1")]

        _execute(  # what two models call by one version
            engine,
            "INSERT INTO concept_versions (digest, name, version, definition, created_at)"
            " VALUES ('d4', 'harm', 1, '{}', now() + interval '1 s')",
        )
        migrate.downgrade(database_url, "0014")

        numbered = "SELECT digest, version FROM concept_versions ORDER BY digest"
        assert _rows(engine, numbered) == [("d1", 1), ("d2", 2), ("d3", 1), ("d4", None)]
        migrate.upgrade(database_url)


def test_a_downgrade_of_the_fifteenth_revision_that_was_interrupted_can_be_repeated(
    database_url: str,
) -> None:
    engine = create_engine(database_url)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        migrate.downgrade(database_url, "0014")
        _execute(engine, "UPDATE alembic_version SET version_num = '0015'")  # as after its first commit
        migrate.downgrade(database_url, "0014")

        migrate.upgrade(database_url)

        assert migrate.is_at_head(engine)


ONE_MORE_EVENT = """
    INSERT INTO incident_events (id, incident_id, version, kind, to_state, severity, findings)
    SELECT gen_random_uuid(), id, 2, 'evidence', 'open', 'critical', '[]' FROM incidents LIMIT 1
    RETURNING id
"""
UPGRADE = "import sys; from service.store import migrate; migrate.upgrade(*sys.argv[1:])"
WAITING = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE application_name = 'subtext-migrate' AND datname = current_database()
    AND relation = '{table}'::regclass AND NOT granted
"""
EXCLUDES_WRITERS = """
    SELECT relation::regclass::text FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE application_name = 'subtext-migrate' AND datname = current_database() AND granted
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND relation IN (SELECT oid FROM pg_class WHERE relkind = 'r')
"""


@contextlib.contextmanager
def _upgrade_that_waits(
    engine: Engine, database_url: str, table: str, revision: str = "0015"
) -> Iterator[None]:
    """Run the migration to the revision until it waits for the table, or has given that up."""
    migrator = subprocess.Popen(
        [sys.executable, "-c", UPGRADE, database_url, revision], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(
            "the migration waits",
            lambda: migrator.poll() is not None or _rows(engine, WAITING.format(table=table)) != [(0,)],
            120,
        )
        yield
    finally:
        migrator.wait(120)


def test_the_fifteenth_revision_waits_for_a_worker_that_does_not_wait_for_it(database_url: str) -> None:
    engine = create_engine(database_url, lock_timeout_seconds=60)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        migrate.downgrade(database_url, "0014")
        _execute(engine, FOURTEENTH_ROWS)
        with engine.connect() as worker:
            event = worker.execute(text(ONE_MORE_EVENT)).scalar_one()
            with _upgrade_that_waits(engine, database_url, "incident_events"):
                excluded = _rows(engine, EXCLUDES_WRITERS)
                worker.execute(text("INSERT INTO webhook_messages (event_id) VALUES (:id)"), {"id": event})
                worker.commit()
        assert excluded == []
        migrate.upgrade(database_url)
        assert migrate.is_at_head(engine)


def test_the_fifteenth_revision_locks_nothing_while_it_looks_at_all_flags(database_url: str) -> None:
    engine = create_engine(database_url)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        migrate.downgrade(database_url, "0014")
        _execute(engine, FOURTEENTH_ROWS)
        with engine.connect() as other:
            other.execute(text("LOCK TABLE flags IN ACCESS EXCLUSIVE MODE"))
            with _upgrade_that_waits(engine, database_url, "flags"):
                excluded = _rows(engine, EXCLUDES_WRITERS)
                other.rollback()
        assert excluded == []
        migrate.upgrade(database_url, "0015")
        assert _rows(engine, USED) == [("a", "d1")]
        migrate.upgrade(database_url)


def test_a_migration_that_meets_who_locks_in_another_order_is_the_one_that_gives_way(
    database_url: str,
) -> None:
    engine = create_engine(database_url, lock_timeout_seconds=60)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        migrate.downgrade(database_url, "0022")
        with engine.connect() as client:
            # Sooner than the migrator's, so that PostgreSQL would end the client.
            client.execute(text("SET LOCAL deadlock_timeout = '700ms'"))
            client.execute(text("LOCK TABLE canary_readings IN ROW EXCLUSIVE MODE"))
            with _upgrade_that_waits(engine, database_url, "canary_readings", "0023"):
                assert client.execute(text("SELECT count(*) FROM concept_matches")).scalar_one() == 0
                client.commit()
        assert migrate.current_revision(engine) == "0023"
        migrate.upgrade(database_url)


def test_a_downgrade_waits_for_a_client_that_is_at_work(database_url: str) -> None:
    engine = create_engine(database_url)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        pool = stack.enter_context(ThreadPoolExecutor(1))

        def waits() -> bool:
            return _rows(engine, WAITING.format(table="api_keys")) != [(0,)]

        with engine.connect() as client:
            client.execute(text("LOCK TABLE api_keys IN ACCESS SHARE MODE"))
            going = pool.submit(migrate.downgrade, database_url, "0044")
            wait_until("the downgrade waits", lambda: going.done() or waits(), 120)
            wait_until("the downgrade lets go", lambda: going.done() or not waits(), 120)
        going.result(120)

        assert migrate.current_revision(engine) == "0044"


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("UPDATE explanations SET position_class = 'tool'", "ck_explanations_position_class"),
        ("UPDATE explanations SET candidates = 0", "ck_explanations_candidates"),
        ("UPDATE decoders SET candidates = 0", "ck_decoders_candidates"),
    ],
)
def test_an_unknown_class_or_no_candidate_cannot_be_stored(
    database_url: str, change: str, constraint: str
) -> None:
    engine = _second(database_url)
    migrate.upgrade(database_url)

    with pytest.raises(IntegrityError, match=constraint):
        _execute(engine, change)

    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE samples SET baseline_probability = -0.01",
        "UPDATE samples SET baseline_probability = inclusion_probability + 0.01",
    ],
)
def test_a_baseline_probability_outside_its_bounds_cannot_be_stored(database_url: str, change: str) -> None:
    engine = create_engine(database_url)
    migrate.downgrade(database_url, "0001")
    _execute(engine, FIRST_ROWS)
    migrate.upgrade(database_url)

    with pytest.raises(IntegrityError, match="ck_samples_baseline_probability"):
        _execute(engine, change)

    engine.dispose()


def test_a_session_runs_in_utc_with_timeouts(database_url: str) -> None:
    engine = create_engine(database_url, statement_timeout_seconds=1.5, lock_timeout_seconds=0.5)

    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("timezone", "statement_timeout", "lock_timeout")
        ]

    assert shown == ["UTC", "1500ms", "500ms"]
    engine.dispose()


def test_replacing_the_database_keeps_the_socket(database_url: str) -> None:
    engine = create_engine(with_database(database_url, "postgres"))

    ping(engine)

    engine.dispose()


def test_migrating_without_a_database_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBTEXT_DATABASE_URL", raising=False)

    with pytest.raises(SystemExit, match="SUBTEXT_DATABASE_URL"):
        alembic.command.upgrade(migrate.config(), "head")
