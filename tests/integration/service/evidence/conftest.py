"""Sessions of those who write a log's entries."""

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from service.store.engine import create_engine, session_factory


@pytest.fixture
def owners(database_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(database_url)
    yield session_factory(engine)
    engine.dispose()
