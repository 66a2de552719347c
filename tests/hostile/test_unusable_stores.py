"""Stores that can never be used as they are: a refusal at start that names the fix."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from service.store.engine import with_database
from tests.support.services import free_port, redis_url_of, start_cluster_node
from tests.support.worker import Bench
from workers.consumer.queue import UnusableQueueError
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
