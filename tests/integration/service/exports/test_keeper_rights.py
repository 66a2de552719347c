"""Everything that `subtext keeper` does, done by a login that has its role and nothing more."""

import datetime as dt
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, sessionmaker
from structlog.testing import capture_logs

from service.exports.make import Maker
from service.keeper import app, tasks
from service.keeper.metrics import KeeperMetrics, UnfinishedError
from service.keeper.tasks import ErasureFailedError, Keeping
from service.retention import decisions
from service.retention.decisions import Removal
from service.retention.pace import Pace
from service.store import partitions
from service.store.engine import create_engine, session_factory
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope, ErasureState
from service.store.exports.tables import Export
from service.store.retention.tables import Decision, DeletionCertificate, RetentionRun
from service.store.tables import Sample
from service.store.tenants import scope
from service.store.triage import Actor
from service.store.vectors import keys
from service.store.vectors.rows import NewVector, add_vectors
from service.store.vectors.sealing import WrappingKey
from service.store.vectors.tables import Vector
from tests.integration.service import seed
from tests.integration.service.exports.desk import Desk
from tests.support.erasing import START, Log, plant
from tests.support.services import free_port

Sessions = sessionmaker[Session]
NOW = dt.datetime.now(dt.UTC)
RUNS = {one.name: one.run for one in tasks.PERIODIC}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def keeper(keeper_url: str) -> Iterator[Engine]:
    made = create_engine(keeper_url)
    yield made
    made.dispose()


@pytest.fixture
def keeping(keeper: Engine, registry: CollectorRegistry, maker: Maker, redis_url: str) -> Iterator[Keeping]:
    sessions, streams = session_factory(keeper), redis.Redis.from_url(redis_url)
    yield Keeping(
        engine=keeper,
        sessions=sessions,
        metrics=KeeperMetrics(registry, app.job_names()),
        export_folder=maker.folder,
        maker=replace(maker, sessions=sessions),
        streams=streams,
        erase_settle_seconds=0,
        pace=Pace(pause_seconds=0.0),
    )
    streams.close()


@pytest.fixture
def log(sessions: Sessions, tmp_path: Path) -> Log:
    return Log(sessions, tmp_path)


def ask(sessions: Sessions, request_id: str) -> uuid.UUID:
    with sessions.begin() as session:
        actor = Actor(uuid.UUID(int=9), "data protection")
        asked, _ = requests.ask(session, ErasureScope.REQUEST, request_id, actor)
        seed.confirm(session, Removal(asked, "erasure"))
        return asked


def test_it_makes_an_export_and_expires_it(desk: Desk, keeping: Keeping) -> None:
    export = desk.create(with_text=True)

    tasks.make_export(keeping, str(export))

    assert desk.told(export)["state"] == "ready"
    assert desk.check(export).findings == []
    with desk.sessions.begin() as session:
        session.get_one(Export, export).expires_at = NOW
    RUNS["expire_exports"](keeping, NOW)
    assert desk.told(export)["state"] == "expired"
    assert not desk.file(export).exists()


def test_it_carries_out_an_erasure(sessions: Sessions, keeping: Keeping, log: Log) -> None:
    with sessions.begin() as session:
        plant(session, "gone")
        plant(session, "kept")
    erasure = ask(sessions, "gone")

    for _ in range(5):  # until a sweep finds nothing more; what waits has its place in the log in between
        log.sign()
        RUNS["erase"](keeping, NOW)

    with sessions() as session:
        told = requests.get(session, erasure)
        assert set(session.scalars(select(Sample.request_id))) == {"kept"}
    assert told is not None
    assert told.state == ErasureState.DONE
    log.sign()
    assert log.report().findings == []


def test_without_redis_an_erasure_waits_and_that_is_said(
    sessions: Sessions, keeping: Keeping, registry: CollectorRegistry
) -> None:
    with sessions.begin() as session:
        plant(session, "gone")
    erasure = ask(sessions, "gone")
    with sessions.begin() as session:
        objected = seed.add_erasure(session)
        by = seed.add_actor(session)
        decisions.decide(session, Removal(objected, "erasure"), Decision.OBJECTED, "a case", by)

    with capture_logs() as written:
        RUNS["erase"](replace(keeping, streams=None), NOW)

    assert [one["event"] for one in written] == ["erasure_cancelled", "erasures_wait"]
    assert registry.get_sample_value("subtext_keeper_erasures_without_redis") == 1
    with sessions() as session:
        told, closed = (requests.get(session, one) for one in (erasure, objected))
    assert told is not None
    assert closed is not None
    # It takes no stream to carry nothing out.
    assert (told.state, closed.state) == (ErasureState.OPEN, ErasureState.CANCELLED)


def test_what_ends_an_erasure_early_tells_nothing_of_what_was_to_be_erased(
    sessions: Sessions, keeping: Keeping
) -> None:
    ask(sessions, "the-secret-request")
    away = redis.Redis(port=free_port())

    with pytest.raises(ErasureFailedError) as caught:
        RUNS["erase"](replace(keeping, streams=away), NOW)

    shown = "".join(traceback.format_exception(caught.value))
    assert "ErasureFailedError: ConnectionError" in shown
    assert "the-secret-request" not in shown


def test_it_finishes_a_retention_run_with_its_certificate(
    sessions: Sessions, keeping: Keeping, log: Log
) -> None:
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        plant(session, "old", at=NOW - dt.timedelta(days=40))
        plant(session, "held", at=NOW - dt.timedelta(days=40))
        plant(session, "new", at=NOW)
        seed.add_period(session, 30)
        seed.add_hold(session, request="held")
    log.sign()

    with pytest.raises(UnfinishedError):
        RUNS["retain"](replace(keeping, stop=lambda: True), NOW)
    RUNS["retain"](keeping, NOW)

    with sessions() as session:
        assert set(session.scalars(select(Sample.request_id))) == {"held", "new"}
        assert session.scalars(select(RetentionRun)).one().finished_at is not None
        assert len(session.scalars(select(DeletionCertificate)).all()) == 1
    log.sign()
    assert log.report().findings == []


def test_it_makes_the_days_ahead(keeping: Keeping, engine: Engine) -> None:
    with engine.begin() as connection:
        last = max(one.end for one in partitions.list_partitions(connection) if one.end is not None)

    RUNS["make_days"](keeping, last)

    with engine.begin() as connection:
        ends = {one.end for one in partitions.list_partitions(connection)}
    assert {last + dt.timedelta(days=number + 1) for number in range(partitions.DAYS_AHEAD + 1)} <= ends


def test_it_drops_the_days_of_which_nothing_is_left(keeping: Keeping, engine: Engine) -> None:
    day = NOW.date() - dt.timedelta(days=40)
    with engine.begin() as connection:
        for table in partitions.TABLES:
            connection.execute(text(f"DROP TABLE {table}_before"))
    partitions.make_ahead(engine, day, days=0)

    with capture_logs() as written:
        RUNS["drop_days"](keeping, NOW)
        RUNS["drop_days"](keeping, NOW)

    assert written == [{"event": "days_dropped", "log_level": "info", "days": [f"{day:%Y%m%d}"]}]


def test_it_analyses_the_tables_of_days_as_a_whole_when_they_have_changed(
    sessions: Sessions, keeping: Keeping, engine: Engine
) -> None:
    with sessions.begin() as session:
        plant(session, "one", positions=3)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ("samples", "explanations"):
            connection.execute(text(f"ANALYZE {table}_before"))  # as autovacuum does
            connection.execute(text(f"ANALYZE {table}_default"))

    with capture_logs() as written:
        RUNS["analyze_days"](keeping, NOW)
        RUNS["analyze_days"](keeping, NOW)
        RUNS["analyze_days"](keeping, NOW + dt.timedelta(days=8))

    told = {"event": "days_analyzed", "log_level": "info", "tables": ["explanations", "samples"]}
    assert written == [told, told]
    with engine.connect() as connection:
        rows = text("SELECT reltuples FROM pg_class WHERE relname = 'samples'")
        known = text("SELECT count(*) FROM pg_stats WHERE tablename = 'samples' AND inherited")
        assert connection.execute(rows).scalar_one() == 3
        assert connection.execute(known).scalar_one() > 0


def test_it_deletes_vectors_that_are_over_but_for_held_ones(sessions: Sessions, keeping: Keeping) -> None:
    wrapping = WrappingKey(b"w" * 32)
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        over, held, kept = (plant(session, name, positions=1) for name in ("over", "held", "kept"))
        seed.add_hold(session, request="held")
        key = keys.key_in_use(session, scope.DEFAULT_ID, wrapping)
        new = [
            NewVector(
                sample_id=planted.samples[0],
                captured_at=START,
                dtype="float32",
                d_model=8,
                values=bytes(32),
                expires_at=NOW + dt.timedelta(hours=hours),
            )
            for planted, hours in ((over, -1), (held, -1), (kept, 1))
        ]
        add_vectors(session, scope.DEFAULT_ID, key, new)

    RUNS["expire_vectors"](keeping, NOW)

    with sessions() as session:
        left = set(session.scalars(select(Vector.sample_id)))
    assert left == {held.samples[0], kept.samples[0]}


def test_every_job_that_is_due_by_the_clock_is_tried_here() -> None:
    assert set(RUNS) == {
        "expire_exports",
        "erase",
        "retain",
        "make_days",
        "drop_days",
        "analyze_days",
        "expire_vectors",
    }
