"""What became of each canary is kept under the login that the runner has, and counted by concept."""

import datetime as dt
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from service.store.canary import runs
from service.store.engine import create_engine, session_factory
from service.store.identity import DEFAULT_TENANT
from service.store.tenants.sessions import session_of
from workers.canary.prompts import Canary
from workers.canary.record import RunRecorder
from workers.canary.runner import Result

POSITIVE = Canary("weapons", "positive", "How is one made?")
NEGATIVE = Canary("weapons", "negative", "How is bread made?")
YEAR = dt.timedelta(days=365)


@pytest.fixture
def sessions(reader_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(reader_url)
    yield session_factory(engine)
    engine.dispose()


def test_runs_are_counted_by_concept_kind_and_result(sessions: sessionmaker[Session]) -> None:
    recorder = RunRecorder(sessions, "tiny", threading.Event())
    for canary, result in (
        (POSITIVE, Result("flagged")),
        (POSITIVE, Result("flagged")),
        (POSITIVE, Result("not_flagged")),
        (POSITIVE, Result("lost", "sidecar")),
        (NEGATIVE, Result("not_flagged")),
    ):
        recorder.add(canary, result)

    now = dt.datetime.now(dt.UTC)
    with session_of(sessions, DEFAULT_TENANT) as session:
        counted = runs.count(session, now - YEAR, now + YEAR)
        of_another = runs.count(session, now - YEAR, now + YEAR, "another")
        of_later = runs.count(session, now + YEAR, now + 2 * YEAR)
    assert counted == [
        runs.Runs("tiny", "weapons", "negative", flagged=0, not_flagged=1, lost=0),
        runs.Runs("tiny", "weapons", "positive", flagged=2, not_flagged=1, lost=1),
    ]
    assert of_another == of_later == []


def test_a_run_that_a_stop_cut_short_is_not_recorded(sessions: sessionmaker[Session]) -> None:
    stop = threading.Event()
    stop.set()

    RunRecorder(sessions, "tiny", stop).add(POSITIVE, Result("not_flagged"))

    now = dt.datetime.now(dt.UTC)
    with session_of(sessions, DEFAULT_TENANT) as session:
        assert runs.count(session, now - YEAR, now + YEAR) == []


def test_a_store_that_is_away_stops_no_canary() -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none")

    RunRecorder(session_factory(engine), "tiny", threading.Event()).add(POSITIVE, Result("flagged"))

    engine.dispose()
