"""The application over a real database, as its own login sees it, and keys for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.store import keys
from service.store.engine import create_engine, session_factory
from tests.integration.service import seed

Headers = dict[str, str]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The owner's: it makes keys and what there is to read."""
    made = create_engine(database_url, pool_size=10)
    yield made
    made.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return session_factory(engine)


@pytest.fixture
def reader(reader_url: str) -> Iterator[Engine]:
    """The application's own: it has no more rights than a deployment gives it."""
    made = create_engine(reader_url, pool_size=10)
    yield made
    made.dispose()


@pytest.fixture
def exports_folder(tmp_path: Path) -> Path:
    """Where exports' files are."""
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def app(reader: Engine, exports_folder: Path) -> FastAPI:
    sessions = session_factory(reader)
    metrics = Metrics(CollectorRegistry())
    return create_app(
        Resources(
            engine=reader,
            sessions=sessions,
            metrics=metrics,
            exports=exports_folder,
            subject_secret=seed.SUBJECT_SECRET,
        )
    )


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def headers_for(sessions: sessionmaker[Session]) -> Callable[..., Headers]:
    """Creates a key with these scopes; returns the headers that carry it and, for text, a purpose."""

    def create(*scopes: str) -> Headers:
        secret = auth.new_secret()
        with sessions.begin() as session:
            keys.add_key(session, name="test", secret_sha256=auth.digest(secret), scopes=scopes)
        purpose = (
            {"Subtext-Purpose": "debugging"} if {"admin", "explanations:read_text"} & {*scopes} else {}
        )
        return {"Authorization": f"Bearer {secret}"} | purpose

    return create


@pytest.fixture
def admin(headers_for: Callable[..., Headers]) -> Headers:
    return headers_for("admin")
