"""A server that takes no writes any more, behind the address of the one that does: connect again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from service import auth
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.store import keys
from service.store.engine import create_engine, session_factory, with_database
from service.store.tables import ApiKey, Explanation
from subtext_sidecar.contract import streams
from subtext_sidecar.shipper.buffer import Entry
from subtext_sidecar.shipper.queue import RedisStream
from tests.support.services import Address, free_port, redis_url_of, running_standby, start_valkey
from tests.support.waiting import wait_until
from tests.support.worker import STREAM, Bench, make_record, running

ROWS = 6


@pytest.fixture
def former_and_next(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Ports of two Valkeys: the primary of today, and the one of tomorrow."""
    servers = []
    for name in ("former", "next"):
        (tmp_path / name).mkdir()
        servers.append(start_valkey(tmp_path / name, free_port()))
    yield servers[0].port, servers[1].port
    for server in servers:
        server.stop()


@pytest.fixture
def address(former_and_next: tuple[int, int]) -> Iterator[Address]:
    made = Address(former_and_next[0])
    yield made
    made.close()


def switch(address: Address, former_and_next: tuple[int, int]) -> None:
    """Make the next one primary with all that the former holds, and the former its replica."""
    former, following = (redis.Redis(port=port) for port in former_and_next)
    following.replicaof("127.0.0.1", str(former_and_next[0]))
    replication: Any = following.info
    wait_until("the replica is in step", lambda: replication("replication")["master_link_status"] == "up")
    following.replicaof("NO", "ONE")
    former.replicaof("127.0.0.1", str(former_and_next[1]))
    address.leads_to = former_and_next[1]
    former.close()
    following.close()


def stored(bench: Bench) -> int:
    with bench.sessions() as session:
        return session.execute(select(func.count()).select_from(Explanation)).scalar_one()


def checks(bench: Bench) -> dict[str, Any]:
    url = f"http://127.0.0.1:{bench.parts.health.port}/readyz"
    found: dict[str, Any] = httpx.get(url, trust_env=False, timeout=30).json()["checks"]
    return found


def test_a_worker_leaves_a_redis_that_became_a_replica(
    make_bench: Callable[..., Bench], address: Address, former_and_next: tuple[int, int]
) -> None:
    bench = make_bench(redis_url=SecretStr(redis_url_of(address.port)))
    bench.add_samples(ROWS, request_id="before")
    bench.drain()

    # Between two fetches: a server that becomes a replica closes the connections that wait on it.
    switch(address, former_and_next)
    with redis.Redis(port=former_and_next[1]) as client:
        header, vector = make_record(request_id="after")
        client.xadd(STREAM, {streams.FIELD_HEADER: header, streams.FIELD_VECTOR: vector})

    with running(bench):
        wait_until("the sample after the switchover", lambda: stored(bench) == ROWS + 1, 60)
        wait_until("readiness returns", lambda: checks(bench)["redis"] == "ok", 30)
    assert bench.dead_letters() == []


def test_a_worker_is_not_ready_while_redis_takes_no_writes(
    make_bench: Callable[..., Bench], former_and_next: tuple[int, int]
) -> None:
    former, following = former_and_next
    bench = make_bench(redis_url=SecretStr(redis_url_of(former)))
    assert checks(bench)["redis"] == "ok"

    bench.client.replicaof("127.0.0.1", str(following))

    wait_until("it is not ready", lambda: checks(bench)["redis"] == "failed")  # remembered for a second


def test_the_sidecar_leaves_a_redis_that_became_a_replica(
    address: Address, former_and_next: tuple[int, int]
) -> None:
    from subtext_sidecar.local.ledger import Cell

    stream = RedisStream(redis_url_of(address.port), max_stream_bytes=1 << 20)
    entry = Entry(stream=STREAM, cell=Cell("m", "uniform", 0), header=b"h", vector=b"v", size=2)

    def ship() -> bool:
        try:
            stream.begin([entry])
            shipped = stream.finish()
        except redis.RedisError:
            return False
        if shipped.error is not None:
            stream.reconnect()  # as the outbox does
        return shipped.error is None

    assert ship()
    switch(address, former_and_next)

    wait_until("it ships again", ship)
    stream.close()


def set_read_only(server: str, database_url: str, value: str) -> None:
    """Let later connections of this database take writes or not; those that are open stay as they are."""
    name = database_url.rsplit("/", 1)[1].split("?", maxsplit=1)[0]
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")


def test_a_worker_leaves_a_postgres_that_takes_no_writes(
    make_bench: Callable[..., Bench], postgres_server: str, database_url: str
) -> None:
    bench = make_bench()
    bench.parts.database.dispose()
    set_read_only(postgres_server, database_url, "on")
    with running(bench):
        bench.add_samples(ROWS)
        wait_until(
            "a write is refused",
            lambda: bench.metric("subtext_worker_failures_total", kind="InternalError") > 0,
            30,
        )
        assert checks(bench)["postgres"] == "failed"

        set_read_only(postgres_server, database_url, "off")

        wait_until("all samples", lambda: stored(bench) == ROWS, 60)
        wait_until("readiness returns", lambda: checks(bench)["postgres"] == "ok", 30)
    assert bench.dead_letters() == []


def client_of(engine: Engine) -> TestClient:
    held = Resources(engine=engine, sessions=session_factory(engine), metrics=Metrics(CollectorRegistry()))
    return TestClient(create_app(held), raise_server_exceptions=False)


def add_key(url: str) -> dict[str, str]:
    engine, secret = create_engine(url), auth.new_secret()
    with session_factory(engine).begin() as session:
        keys.add_key(session, name="test", secret_sha256=auth.digest(secret), scopes=["admin"])
    engine.dispose()
    return {"X-API-Key": secret}


READS = ("/v1/models", "/v1/explanations", "/v1/flags", "/v1/coverage")


def test_rest_answers_from_a_standby(postgres_server: str, database_url: str) -> None:
    headers = add_key(database_url)
    name = str(database_url.rsplit("/", 1)[1].split("?", maxsplit=1)[0])
    with running_standby(postgres_server) as standby:
        engine = create_engine(with_database(standby, name))
        client = client_of(engine)

        answers = {path: client.get(path, headers=headers).status_code for path in READS}

        assert answers == dict.fromkeys(READS, 200)
        assert client.get("/readyz").status_code == 200
        engine.dispose()


def test_the_use_of_a_key_is_recorded_again_after_a_switchover(
    postgres_server: str, database_url: str
) -> None:
    headers = add_key(database_url)
    set_read_only(postgres_server, database_url, "on")
    engine = create_engine(database_url, pool_size=1)
    client = client_of(engine)
    assert client.get("/v1/models", headers=headers).status_code == 200
    set_read_only(postgres_server, database_url, "off")

    # Each tries once a minute: one finds out that its connection is of before, and the next one writes.
    for client in (client_of(engine), client_of(engine)):
        assert client.get("/v1/models", headers=headers).status_code == 200

    with session_factory(engine)() as session:
        assert session.execute(select(ApiKey.last_used_at)).scalar_one() is not None
    engine.dispose()


def test_a_write_that_a_standby_refuses_is_a_503_that_says_when_to_come_back(
    postgres_server: str, database_url: str
) -> None:
    set_read_only(postgres_server, database_url, "on")
    engine = create_engine(database_url)
    held = Resources(engine=engine, sessions=session_factory(engine), metrics=Metrics(CollectorRegistry()))
    app = create_app(held)

    @app.get("/writes")
    def write() -> None:
        with held.sessions.begin() as session:
            keys.add_key(session, name="x", secret_sha256=b"x" * 32, scopes=[])

    answer = TestClient(app, raise_server_exceptions=False).get("/writes")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["code"] == "database_unavailable"
    engine.dispose()


def test_a_connection_in_use_when_the_engine_is_disposed_is_closed_once_given_back(
    database_url: str,
) -> None:
    engine = create_engine(database_url)
    held = engine.connect()
    other = engine.connect()
    opened = [connection.connection.dbapi_connection for connection in (held, other)]
    other.close()

    engine.dispose()
    held.close()

    assert all(connection is not None and connection.closed for connection in opened)
    with engine.connect() as fresh:
        later = fresh.connection.dbapi_connection
    assert later is not None
    assert not later.closed
    engine.dispose()
