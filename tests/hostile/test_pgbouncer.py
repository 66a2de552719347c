"""Everything works through a pooler that gives each transaction another connection."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import func, select, text

from service import auth
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.store import keys, migrate
from service.store.engine import create_engine, session_factory
from service.store.tables import Explanation
from tests.support.services import running_pgbouncer
from tests.support.worker import Bench

ROWS = 60


@pytest.fixture
def pooled_url(database_url: str, state_dir: Path) -> Iterator[str]:
    with running_pgbouncer(database_url, state_dir) as url:
        yield url


def test_a_worker_stores_through_it(make_bench: Callable[..., Bench], pooled_url: str) -> None:
    one, two = (make_bench(database_url=SecretStr(pooled_url)) for _ in range(2))
    one.add_samples(ROWS)

    with ThreadPoolExecutor(2) as pool:
        for drained in [pool.submit(bench.drain) for bench in (one, two)]:
            drained.result()

    with one.sessions() as session:
        assert session.execute(select(func.count()).select_from(Explanation)).scalar_one() == ROWS
    assert one.dead_letters() == []
    assert one.metric("subtext_worker_failures_total", kind="OperationalError") == 0


def test_rest_answers_through_it(pooled_url: str) -> None:
    engine, secret = create_engine(pooled_url), auth.new_secret()
    sessions = session_factory(engine)
    with sessions.begin() as session:
        keys.add_key(session, name="test", secret_sha256=auth.digest(secret), scopes=["admin"])
    client = TestClient(
        create_app(Resources(engine=engine, sessions=sessions, metrics=Metrics(CollectorRegistry())))
    )
    assert client.get("/readyz").status_code == 200

    def ask(number: int) -> int:
        path = ("/v1/explanations", "/v1/coverage", "/v1/flags", "/v1/models")[number % 4]
        return client.get(path, headers={"X-API-Key": secret}).status_code

    with ThreadPoolExecutor(8) as pool:  # many more than PgBouncer has connections, and often
        assert set(pool.map(ask, range(80))) == {200}
    engine.dispose()


def test_migrations_run_through_it_one_at_a_time(pooled_url: str, database_url: str) -> None:
    migrate.downgrade(database_url, "base")
    migrators = [
        subprocess.Popen(
            [sys.executable, "-m", "service.cli", "migrate"], env=os.environ | {"SUBTEXT_DATABASE_URL": url}
        )
        for url in (pooled_url, database_url)
    ]

    assert [migrator.wait(timeout=120) for migrator in migrators] == [0, 0]

    engine = create_engine(pooled_url)
    assert migrate.is_at_head(engine)
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    with engine.connect() as connection:
        assert connection.execute(text(locks)).scalar() == 0
    engine.dispose()


def test_nothing_that_we_set_reaches_whoever_gets_the_connection_next(pooled_url: str) -> None:
    engine = create_engine(pooled_url, pool_size=5, statement_timeout_seconds=7, lock_timeout_seconds=3)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "7s"
    engine.dispose()

    with psycopg.connect(pooled_url, autocommit=True) as other:
        shown = [other.execute(f"SHOW {name}").fetchone() for name in ("statement_timeout", "lock_timeout")]

    assert shown == [("0",), ("0",)]
