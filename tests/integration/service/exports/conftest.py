"""A store whose log is written and signed, and what makes exports of it."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import note
from service.evidence.note import Signer
from service.exports.make import Maker
from service.sequencer.sequencer import Sequencer
from service.store.engine import create_engine, session_factory
from tests.integration.service.exports import past
from tests.integration.service.exports.desk import Desk
from tests.integration.service.exports.past import Past


@pytest.fixture
def signer() -> Signer:
    return note.generate("subtext.example")


@pytest.fixture
def sequencer(sequencer_url: str, tmp_path: Path, signer: Signer) -> Iterator[Sequencer]:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    engine = create_engine(sequencer_url)
    yield Sequencer(session_factory(engine), signer, checkpoints)
    engine.dispose()


@pytest.fixture
def stored(sessions: sessionmaker[Session], sequencer: Sequencer) -> Past:
    with sessions.begin() as session:
        made = past.plant(session)
    sequencer.sequence()
    sequencer.sign()
    return made


@pytest.fixture
def maker(sessions: sessionmaker[Session], sequencer: Sequencer, exports_folder: Path) -> Maker:
    """While an export waits for the log, the log goes on."""

    def go_on(_seconds: float) -> None:
        sequencer.sequence()
        sequencer.sign()

    return Maker(
        sessions=sessions,
        folder=exports_folder,
        kept=dt.timedelta(days=1),
        signed_within_seconds=60,
        sleep=go_on,
    )


@pytest.fixture
def desk(
    client: TestClient,
    admin: dict[str, str],
    maker: Maker,
    signer: Signer,
    stored: Past,
) -> Desk:
    return Desk(
        client=client, admin=admin, maker=maker, signer=signer, sessions=maker.sessions, stored=stored
    )
