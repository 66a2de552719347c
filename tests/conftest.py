"""Real services for the tests, started once a process, and how two processes share the tests.

Each process has a PostgreSQL and a Valkey of its own, from pinned packages.
"""

import atexit
import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from tests.support import ROOT
from tests.support.held import held
from tests.support.schedule import ByFile, group_of, place_of
from tests.support.services import cloned_database, running_postgres, running_valkey

# The same examples in every run, so that a red build can be seen again; HYPOTHESIS_PROFILE=search
# looks for new ones.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# As in the Makefile: without bytecode each process of the tests compiles what it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Where a test configures no log, structlog would draw each traceback with all local variables: for seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Read when torch is first imported; spinning threads of two engines slow both down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores: more threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def state_dir() -> Path:
    """Where converted models and assembled decoders are kept between runs (ignored by git)."""
    path = Path(os.environ.get("SUBTEXT_HOME", ROOT / ".subtext"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def model_dir(state_dir: Path) -> Path:
    """SmolLM2-135M-Instruct as a float32 Hugging Face directory."""
    from deploy.local.model import MODEL_NAME, ensure_model

    models = state_dir / "models"
    models.mkdir(exist_ok=True)
    with held(models / MODEL_NAME):
        return ensure_model(models)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL; yields a psycopg URL of its maintenance database."""
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> str:
    """A database migrated to head once, with the logins of a deployment; tests clone it."""
    import psycopg

    from deploy.local.stores import ensure_logins
    from service.store.engine import with_database
    from service.store.migrate import upgrade

    name = "subtext_template"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    ensure_logins(postgres_server)
    url = with_database(postgres_server, name)
    upgrade(url)
    _drop_days_but_one(url)
    return name


def _drop_days_but_one(url: str) -> None:
    """Drop the days ahead but for the first: each takes four tables, which every clone would copy."""
    from service.store.engine import create_engine
    from service.store.partitions import list_partitions

    engine = create_engine(url)
    with engine.begin() as connection:
        days = [one for one in list_partitions(connection) if one.start is not None]
        first = min(one.start for one in days if one.start is not None)
        for one in days:
            if one.start != first:
                connection.exec_driver_sql(f"DROP TABLE {one.name}")
    engine.dispose()


@pytest.fixture
def database_url(postgres_server: str, template_database: str) -> Iterator[str]:
    """An empty migrated database of one test, as a psycopg URL."""
    with cloned_database(postgres_server, template_database) as url:
        yield url


@pytest.fixture
def writer_url(database_url: str) -> str:
    """The same database with a worker's login."""
    from deploy.local.stores import WORKER_LOGIN
    from service.store.engine import with_user

    return with_user(database_url, WORKER_LOGIN)


@pytest.fixture
def reader_url(database_url: str) -> str:
    """The same database with the service's login."""
    from deploy.local.stores import SERVICE_LOGIN
    from service.store.engine import with_user

    return with_user(database_url, SERVICE_LOGIN)


@pytest.fixture
def sequencer_url(database_url: str) -> str:
    """The same database with the login of the log's sequencer."""
    from deploy.local.stores import LOG_LOGIN
    from service.store.engine import with_user

    return with_user(database_url, LOG_LOGIN)


@pytest.fixture
def keeper_url(database_url: str) -> str:
    """The same database with the login of whoever retains, erases and exports."""
    from deploy.local.stores import KEEPER_LOGIN
    from service.store.engine import with_user

    return with_user(database_url, KEEPER_LOGIN)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey; yields its redis:// URL."""
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def redis_url(valkey_server: str) -> Iterator[str]:
    """The test's own, empty Valkey database."""
    import redis

    client = redis.Redis.from_url(valkey_server)
    client.flushall()
    yield valkey_server
    client.flushall()
    client.close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: one process is busy with it while another runs the rest.

    The end-to-end tests stay together, so that their pipeline starts and stops once.
    """
    with_engines = {group_of(item.nodeid) for item in items if item.get_closest_marker("vllm")}
    items.sort(key=lambda item: place_of(item.nodeid, with_engines))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let no collection of garbage look through what was imported, in no process that is forked either."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or native modules report leaks
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)
