"""The days of the tables that grow with traffic: who makes and drops them, and what a row is known by."""
# ruff: noqa: S608  # the statements are made of our tables' names

import datetime as dt
import threading
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg.errors import InsufficientPrivilege, RaiseException
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from service.metrics import Metrics
from service.store import partitions
from service.store.engine import create_engine
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.write import readings
from service.store.write.evidence import Verdicts
from service.watch.partition_watch import PartitionWatch
from tests.integration.service import seed

WITHOUT_SAMPLE = """
    SELECT count(*) FROM explanations WHERE NOT EXISTS (
        SELECT FROM samples WHERE samples.id = sample_id AND samples.captured_at = explanations.captured_at
    )
"""
WITHOUT_EXPLANATION = """
    SELECT count(*) FROM concept_matches AS match WHERE NOT EXISTS (
        SELECT FROM explanations
        WHERE explanations.id = explanation_id AND explanations.captured_at = match.captured_at
    )
"""
KEPT_PLANS = """
    SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND NOT prosecdef
    AND 'plan_cache_mode=force_generic_plan' = ANY (proconfig) ORDER BY proname COLLATE "C"
"""
ORPHANS = (WITHOUT_SAMPLE, WITHOUT_EXPLANATION)


@pytest.fixture
def keeper(keeper_url: str) -> Iterator[Engine]:
    made = create_engine(keeper_url)
    yield made
    made.dispose()


def one(engine: Engine, query: str) -> object:
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar_one()


def today(engine: Engine) -> dt.date:
    found = one(engine, "SELECT (now() AT TIME ZONE 'UTC')::date")
    assert isinstance(found, dt.date)
    return found


def last_day(engine: Engine) -> dt.date:
    """The last day that the migration of the template made: tests may run over a midnight."""
    with engine.connect() as connection:
        ends = [found.end for found in partitions.list_partitions(connection) if found.end is not None]
    return max(ends).date() - dt.timedelta(days=1)


def test_days_are_made_ahead_by_the_migration_and_further_ones_by_the_keeper_once(
    engine: Engine, keeper: Engine
) -> None:
    last = last_day(engine)
    day = last + dt.timedelta(days=1)

    assert partitions.make_ahead(keeper, last) == partitions.Made(
        [last + dt.timedelta(days=number) for number in range(1, partitions.DAYS_AHEAD + 1)], []
    )
    assert partitions.make_ahead(keeper, last) == partitions.Made([], [])

    with engine.connect() as connection:
        found = [one for one in partitions.list_partitions(connection) if one.start is not None]
        assert partitions.count_days_ahead(connection, last) == partitions.DAYS_AHEAD
    starts = {one.table: one for one in found if one.start is not None and one.start.date() == day}
    assert sorted(starts) == sorted(partitions.TABLES)
    assert all(one.end == one.start + dt.timedelta(days=1) for one in starts.values() if one.start)


def test_nobody_meets_a_partition_by_itself(
    engine: Engine, reader_url: str, writer_url: str, keeper_url: str
) -> None:
    with engine.connect() as connection:
        names = [one.name for one in partitions.list_partitions(connection)]
    for url in (reader_url, writer_url, keeper_url):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT set_config(%s, %s, false)", [scope.SETTING, str(scope.DEFAULT_ID)])
            for name in names:
                with pytest.raises(InsufficientPrivilege):
                    connection.execute(f"SELECT FROM {name}".encode())


def test_only_the_keeper_may_make_drop_and_analyse_days(
    reader_url: str, writer_url: str, keeper_url: str
) -> None:
    calls = (
        "SELECT subtext_make_day(current_date)",
        "SELECT subtext_drop_partitions('20200101')",
        "SELECT subtext_analyze_parent('samples')",
    )
    for url in (reader_url, writer_url):
        for call in calls:
            with psycopg.connect(url) as connection, pytest.raises(InsufficientPrivilege):
                connection.execute(call.encode())
    with psycopg.connect(keeper_url) as connection:
        for call in calls:
            connection.execute(call.encode())


def test_the_keeper_analyses_no_table_but_those_of_days(keeper_url: str) -> None:
    with psycopg.connect(keeper_url) as connection, pytest.raises(RaiseException, match="no table of days"):
        connection.execute("SELECT subtext_analyze_parent('api_keys')")


def test_a_row_of_no_day_is_kept_and_says_so_and_its_day_cannot_be_made_any_more(
    engine: Engine, sessions: sessionmaker[Session], keeper: Engine
) -> None:
    day = last_day(engine) + dt.timedelta(days=2)
    with sessions.begin() as session:
        seed.add_explanation(
            session,
            seed.add_model(session),
            captured_at=dt.datetime.combine(day, dt.time(), dt.UTC),
            concept="food",
        )

    with engine.connect() as connection:
        assert all(size > 0 for size in partitions.default_bytes(connection).values())
    made = partitions.make_ahead(keeper, day - dt.timedelta(days=1), days=2)

    assert made.occupied == [day]
    assert len(made.made) == 2
    assert one(engine, "SELECT count(*) FROM explanations") == 1


def test_the_service_tells_how_many_days_are_ahead_and_what_lies_in_none(
    engine: Engine, reader: Engine, sessions: sessionmaker[Session]
) -> None:
    metrics = Metrics(CollectorRegistry())
    watch = PartitionWatch(reader, metrics)
    last = last_day(engine)

    watch.look(last - dt.timedelta(days=2))
    shown = metrics.render().decode()
    with sessions.begin() as session:
        at = dt.datetime.combine(last + dt.timedelta(days=2), dt.time(), dt.UTC)
        seed.add_explanation(session, seed.add_model(session), captured_at=at)
    watch.look(last)

    assert "subtext_store_days_ahead 2.0" in shown
    assert 'subtext_store_default_partition_bytes{table="samples"} 0.0' in shown
    shown = metrics.render().decode()
    assert "subtext_store_days_ahead 0.0" in shown
    assert 'subtext_store_default_partition_bytes{table="samples"} 8192.0' in shown


def test_a_day_is_dropped_whole_once_its_readers_have_ended_and_not_before_it_is_over(
    engine: Engine, sessions: sessionmaker[Session], keeper: Engine, database_url: str
) -> None:
    day = today(engine) - dt.timedelta(days=40)
    with engine.begin() as connection:
        for table in partitions.TABLES:  # as a store that has days for so long
            connection.execute(text(f"DROP TABLE {table}_before"))
    assert partitions.make_ahead(keeper, day, days=1).made == [day, day + dt.timedelta(days=1)]
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number in range(2):
            at = dt.datetime.combine(day + dt.timedelta(days=number), dt.time(12), dt.UTC)
            seed.add_explanation(session, audited, captured_at=at, concept="food", request_id=f"r{number}")

    with psycopg.connect(database_url) as reading:
        reading.execute("SELECT count(*) FROM explanations")
        end = threading.Timer(1, reading.rollback)
        end.start()
        assert partitions.drop_day(engine, day) == len(partitions.TABLES)
        end.join()

    assert partitions.drop_day(keeper, day) == 0
    for table in partitions.TABLES:
        assert one(engine, f"SELECT count(*) FROM {table}") == 1, table
    assert [one(engine, query) for query in ORPHANS] == [0, 0]
    with pytest.raises(DBAPIError, match="is not over yet"):
        partitions.drop_day(keeper, last_day(engine))


def test_the_keeper_drops_days_of_which_nothing_is_left_and_no_others(
    engine: Engine, sessions: sessionmaker[Session], keeper: Engine
) -> None:
    last = today(engine)
    full, empty, lately = (last - dt.timedelta(days=days) for days in (40, 39, 20))
    with engine.begin() as connection:
        for table in partitions.TABLES:
            connection.execute(text(f"DROP TABLE {table}_before"))
    assert partitions.make_ahead(keeper, full, days=20).made[-1] == lately
    with sessions.begin() as session:
        at = dt.datetime.combine(full, dt.time(12), dt.UTC)
        seed.add_explanation(session, seed.add_model(session), captured_at=at, request_id="r")

    with pytest.raises(DBAPIError, match="has rows: a day goes when nothing of it is left"):
        partitions.drop_day(keeper, full)
    now = dt.datetime.combine(last, dt.time(12), dt.UTC)
    dropped = partitions.drop_empty(keeper, now)

    assert dropped == [f"{empty + dt.timedelta(days=number):%Y%m%d}" for number in range(9)]
    with engine.connect() as connection:
        starts = {one.start.date() for one in partitions.list_partitions(connection) if one.start}
    assert full in starts
    assert lately in starts
    assert starts.isdisjoint({empty})
    for table in ("samples", "explanations"):
        assert one(engine, f"SELECT count(*) FROM {table}") == 1, table
    assert partitions.drop_empty(keeper, now) == []


def reading(sample: Sample, name: str) -> readings.NewReading:
    return readings.NewReading(
        sample=sample,
        request_names=[name],
        text="A list about food.",
        well_formed=True,
        cosine=0.8,
        fve=0.4,
        fve_beyond_token=0.1,
        position_class="answer",
        verified=True,
        claims=None,
        candidates=1,
        margin=None,
        anomaly_score=None,
        anomaly_p_value=None,
        anomaly_calibration_n=None,
        matches=[readings.NewMatch("food", "regex", 1.0)],
    )


def test_what_an_engine_computes_again_past_midnight_is_the_same_row(
    engine: Engine, sessions: sessionmaker[Session]
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        other = seed.add_decoder(session, audited.model, audited.decoder.layer)
    end = dt.datetime.combine(last_day(engine), dt.time(), dt.UTC)
    identity, capture = uuid.uuid4(), uuid.uuid4()

    def store(captured_at: dt.datetime, decoder_id: uuid.UUID) -> int:
        sample = Sample(
            id=identity,
            capture_id=capture,
            request_id="r",
            layer=audited.decoder.layer,
            position=3,
            token_id=7,
            token_text=" a",
            phase="decode",
            norm=1.0,
            stratum="uniform",
            inclusion_probability=0.5,
            baseline_probability=0.5,
            reason="decode",
            screen_scores={},
            captured_at=captured_at,
        )
        with sessions.begin() as session:
            stored = readings.store_batch(
                session,
                [reading(sample, "n")],
                model_id=audited.model.id,
                decoder_id=decoder_id,
                verdicts=Verdicts(decide=lambda _: (), concepts_digest=""),
                tenant=tenant_id(DEFAULT_TENANT),
            )
        return len(stored.explanation_ids)

    before, after = end - dt.timedelta(minutes=1), end + dt.timedelta(minutes=1)

    assert [store(at, audited.decoder.id) for at in (before, before, after)] == [1, 0, 0]
    assert store(after, other.decoder.id) == 1
    counts = {table: one(engine, f"SELECT count(*) FROM {table}") for table in partitions.TABLES}
    assert counts == {"samples": 1, "request_names": 2, "explanations": 2, "concept_matches": 2}
    assert [one(engine, query) for query in ORPHANS] == [0, 0]


def test_a_match_without_a_time_is_refused_as_by_a_store_that_is_away(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(DBAPIError) as refused:
        connection.execute(
            text(
                "INSERT INTO concept_matches (explanation_id, concept, matcher, score)"
                " VALUES (gen_random_uuid(), 'food', 'regex', 1)"
            )
        )

    # No constraint that a worker would blame on the row, and give it up for.
    assert getattr(refused.value.orig, "sqlstate", "")[:2] == "55"


def test_look_ups_of_any_day_keep_one_plan_and_meet_their_callers_rows_alone(
    sessions: sessionmaker[Session], reader_url: str
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        stored = seed.add_explanation(session, audited, request_id="mine", trace_id="ab" * 16)
        capture = seed.capture_of(audited, "mine")
        values = {"id": stored.id, "capture": capture, "model": audited.model.id, "trace": "ab" * 16}
        kept = session.scalars(text(KEPT_PLANS)).all()
    found = {}
    reader = create_engine(reader_url)
    for name in (DEFAULT_TENANT, "acme"):
        with Session(reader) as session:
            scope.enter(session, scope.Reach(tenant_id(name)))
            found[name] = [
                session.execute(text(look_up), values).scalar()
                for look_up in (
                    "SELECT subtext_time_of_explanation(:id)",
                    "SELECT subtext_time_of_capture(:capture, :model)",
                    "SELECT capture_id FROM subtext_captures_named('{mine}', NULL, NULL, NULL, 1)",
                    "SELECT NULLIF(subtext_count_named('{mine}', 9), 0)",
                    "SELECT subtext_capture_ids_named('{mine}')",
                    "SELECT first_at FROM subtext_days_of_trace(:trace, 9)",
                )
            ]
    reader.dispose()

    assert found[DEFAULT_TENANT] == [seed.START, seed.START, capture, 1, capture, seed.START]
    assert found["acme"] == [None] * 6
    assert kept == [
        "subtext_capture_ids_named",
        "subtext_captures_named",
        "subtext_count_named",
        "subtext_days_of_trace",
        "subtext_time_of_capture",
        "subtext_time_of_explanation",
    ]
