"""A log beside the store, and a client of the streams."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy.orm import Session, sessionmaker

from tests.support.erasing import Log


@pytest.fixture
def log(sessions: sessionmaker[Session], tmp_path: Path) -> Log:
    return Log(sessions, tmp_path)


@pytest.fixture
def streams(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    yield client
    client.close()
