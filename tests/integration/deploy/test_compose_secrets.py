"""Passwords come by file: the stream's server as compose starts it, and those who connect to it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from pydantic import SecretStr

from deploy.local import launch
from deploy.local.home import Home
from service.settings import StoreSettings
from subtext_sidecar.shipper.queue import RedisStream
from tests.support import ROOT
from tests.support.services import free_port, redis_url_of
from tests.support.waiting import wait_until
from workers.settings import WorkerSettings

PASSWORD = "s3cret with 'quotes'/@:%"
HARMLESS = "0123456789abcdef"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Valkey by the command of compose's redis; yields its URL without a password, and its process."""
    binary = launch.valkey(Home(root=tmp_path, run_dir=tmp_path), 0).command[0]
    (tmp_path / "redis-server").symlink_to(binary)
    (tmp_path / "redis_password").write_text(f"{HARMLESS}\n")
    port = free_port()
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    moved = {"$$": "$", "/tmp": str(tmp_path), "/run/secrets": str(tmp_path)}  # noqa: S108  # as compose has it
    command = list(compose["services"]["redis"]["command"])
    for place, elsewhere in moved.items():
        command = [part.replace(place, elsewhere) for part in command]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--bind", "127.0.0.1"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
    )
    url = redis_url_of(port)

    def listens() -> bool:
        try:
            return bool(redis.Redis.from_url(url, password=HARMLESS).ping())
        except redis.ConnectionError:
            return False

    wait_until("the server", listens)
    yield url, process.pid
    process.terminate()
    process.wait()


def test_the_streams_server_asks_for_the_password_and_shows_it_to_nobody(
    server: tuple[str, int], tmp_path: Path
) -> None:
    url, process = server

    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(url).ping()
    stream = RedisStream(url, max_stream_bytes=1 << 20, password=HARMLESS)
    stream.check_server()
    stream.close()

    assert HARMLESS not in Path(f"/proc/{process}/cmdline").read_text()
    assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    assert redis.Redis.from_url(url, password=HARMLESS).config_get("maxmemory-policy") == {
        "maxmemory-policy": "noeviction"
    }


def test_a_password_from_a_file_may_have_any_characters(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    url = "postgresql://subtext_worker@postgres:5432/subtext"
    worker = WorkerSettings(
        database_url=SecretStr(url),
        redis_url=SecretStr("redis://redis"),
        database_password_file=file,
        redis_password_file=file,
        decoder_dir=tmp_path,
        concepts_file=tmp_path,
    )
    store = StoreSettings(database_url=SecretStr(url), database_password_file=file)

    from sqlalchemy import make_url

    for database in (worker.database, store.database):
        assert make_url(database).password == PASSWORD
        assert make_url(database).host == "postgres"
    assert worker.redis_password == PASSWORD
