"""What a failing database makes the service and a worker log: what failed, and nothing of whom."""

from collections.abc import Callable

import httpx
import psycopg
import pytest
from sqlalchemy.orm import Session, sessionmaker
from structlog.testing import capture_logs

from service import auth
from service.store import keys
from tests.support.service import running_service
from tests.support.services import free_port
from tests.support.waiting import wait_until
from tests.support.worker import Bench, running
from tests.support.worker_fixtures import concepts_file, make_bench, worker_settings

__all__ = ["concepts_file", "make_bench", "worker_settings"]

REQUEST = "chat-of-somebody-in-particular"
BREAKS = (
    "ALTER TABLE request_names ALTER COLUMN name TYPE bytea USING name::bytea",
    # A column that a policy compares keeps its type.
    "DROP POLICY key_reader ON api_keys; ALTER TABLE api_keys ALTER secret_sha256 TYPE text USING 'x'",
)


def breaking(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_the_service_logs_neither_request_ids_nor_key_digests(
    database_url: str, reader_url: str, sessions: sessionmaker[Session]
) -> None:
    secret, port = auth.new_secret(), free_port()
    digest = auth.digest(secret)
    with sessions.begin() as session:
        keys.add_key(session, name="test", secret_sha256=digest, scopes=["admin"])
    with running_service(database_url=reader_url, http_port=str(port)) as process:
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": secret}, trust_env=False
        )

        def ready() -> bool:
            try:
                return client.get("/readyz").is_success
            except httpx.TransportError:
                return False

        wait_until("the service", ready, 60)
        for statement in BREAKS:
            breaking(database_url, statement)
            assert client.get(f"/v1/requests/{REQUEST}").status_code == 500
        process.terminate()
        _, logged = process.communicate(timeout=20)
        client.close()

    assert logged.count('"request_failed"') == len(BREAKS)
    assert "UndefinedFunction" in logged
    for secret_part in (REQUEST, secret, digest.hex(), repr(digest)[2:-1]):
        assert secret_part not in logged


@pytest.mark.parametrize(
    ("statement", "letters"),
    [
        ("ALTER TABLE samples ADD CONSTRAINT broken CHECK (position < 0) NOT VALID", 2),
        ("REVOKE INSERT ON samples FROM subtext_writer", 0),
    ],
    ids=["a refused row", "an outage"],
)
def test_a_worker_logs_no_request_id(
    make_bench: Callable[..., Bench], database_url: str, statement: str, letters: int
) -> None:
    bench = make_bench(max_deliveries=1)
    breaking(database_url, statement)
    bench.add_samples(2, request_id=REQUEST)

    def is_told() -> bool:
        return "samples" in repr(logged) and len(bench.dead_letters()) == letters

    with capture_logs() as logged, running(bench):
        wait_until("the failure is told", is_told, 60)
    assert REQUEST not in repr(logged)
    assert all(REQUEST.encode() not in letter[b"error"] for letter in bench.dead_letters())
