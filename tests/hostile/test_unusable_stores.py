"""Stores that can never be used as they are: a refusal at start that names the fix."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from service.store.engine import with_database
from tests.support.services import free_port, redis_url_of, start_cluster_node
from tests.support.worker import Bench
from workers.consumer import serving
from workers.errors import UnusableQueueError
from workers.settings import WorkerSettings


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "cluster").mkdir()
    port = free_port()
    server = start_cluster_node(tmp_path / "cluster", port)
    yield redis_url_of(port)
    server.stop()


def refusal(command: list[str], settings: WorkerSettings, **changes: str) -> str:
    """What the command says when it refuses to start with these settings."""
    env = {
        "SUBTEXT_DATABASE_URL": settings.database_url.get_secret_value(),
        "SUBTEXT_REDIS_URL": settings.redis_url.get_secret_value(),
        "SUBTEXT_DECODER_DIR": str(settings.decoder_dir),
        "SUBTEXT_CONCEPTS_FILE": str(settings.concepts_file),
        "SUBTEXT_HTTP_PORT": str(free_port()),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", *command],
        env=os.environ | env | changes,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2, said
    assert "Traceback" not in said
    return said


def test_a_worker_refuses_redis_in_cluster_mode(cluster_url: str, worker_settings: WorkerSettings) -> None:
    assert "cluster-enabled no" in refusal(["worker"], worker_settings, SUBTEXT_REDIS_URL=cluster_url)


def test_a_sidecar_refuses_redis_in_cluster_mode(
    cluster_url: str, worker_settings: WorkerSettings, tmp_path: Path
) -> None:
    said = refusal(
        ["sidecar"],
        worker_settings,
        SUBTEXT_REDIS_URL=cluster_url,
        SUBTEXT_SOCKET=f"ipc://{tmp_path}/socket",
    )

    assert "cluster-enabled no" in said


def test_a_worker_that_finds_a_cluster_only_later_ends(
    tmp_path: Path, make_bench: Callable[..., Bench]
) -> None:
    port = free_port()
    bench = make_bench(redis_url=SecretStr(redis_url_of(port)))
    server = start_cluster_node(tmp_path, port)

    with pytest.raises(UnusableQueueError, match="cluster-enabled no"):
        bench.loop.step()

    server.stop()


@pytest.fixture
def ascii_url(postgres_server: str) -> Iterator[str]:
    """A database whose texts have no encoding."""
    name = f"ascii_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        yield with_database(postgres_server, name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(
    "command",
    [["migrate"], ["migrate", "--check"], ["service"], ["key", "list"], ["worker"]],
    ids=" ".join,
)
def test_each_command_refuses_a_database_that_is_not_utf_8(
    ascii_url: str, worker_settings: WorkerSettings, command: list[str]
) -> None:
    said = refusal(command, worker_settings, SUBTEXT_DATABASE_URL=ascii_url)

    assert "SQL_ASCII" in said
    assert "ENCODING 'UTF8'" in said


@contextmanager
def swapped(server: str, one: str, other: str) -> Iterator[None]:
    """Let two databases have each other's names for the length of the block."""

    def swap() -> None:
        with psycopg.connect(server, autocommit=True) as admin:
            for old, new in ((one, "swapped"), (other, one), ("swapped", other)):
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [old]
                )
                admin.execute(f"ALTER DATABASE {old} RENAME TO {new}")

    swap()
    yield
    swap()


def test_a_database_that_turns_unusable_ends_the_worker_and_costs_no_row(
    postgres_server: str, database_url: str, ascii_url: str, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench()
    bench.add_samples(6)
    names = [str(make_url(url).database) for url in (database_url, ascii_url)]

    with swapped(postgres_server, *names):
        assert serving.serve(bench.parts, bench.loop) == 2

    healthy = make_bench()
    healthy.drain()
    assert healthy.dead_letters() == []
    assert healthy.metric("subtext_stream_redeliveries_total") == 0
