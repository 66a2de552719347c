"""The sequencer gives each entry one place, signs what has grown, and refuses a tree that was changed."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import folder, note, verify
from service.sequencer.sequencer import NotAnExtensionError, Sequencer
from service.store import identity
from service.store.engine import create_engine, session_factory
from service.store.evidence import tree
from service.store.evidence.append import append
from service.store.evidence.log import StoredLog

TENANT = identity.tenant_id(identity.DEFAULT_TENANT)
SIGNER = note.generate("subtext.example")


@pytest.fixture
def sequencers(sequencer_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(sequencer_url)
    yield session_factory(engine)
    engine.dispose()


@pytest.fixture
def writers(writer_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(writer_url)
    yield session_factory(engine)
    engine.dispose()


def write(writers: sessionmaker[Session], count: int, kind: str = "later") -> None:
    with writers.begin() as session:
        append(session, kind, [{"number": number} for number in range(count)])


def report(database_url: str, checkpoints: Path) -> verify.Report:
    engine = create_engine(database_url)
    with session_factory(engine)() as session:
        notes = folder.read(checkpoints, TENANT).whole
        found = verify.verify(
            StoredLog(session, TENANT), notes, SIGNER.verifier, verify.origin_of(SIGNER.name, TENANT)
        )
    engine.dispose()
    return found


def test_entries_get_places_and_the_log_verifies_after_restarts(
    sequencers: sessionmaker[Session], writers: sessionmaker[Session], database_url: str, tmp_path: Path
) -> None:
    for count in (3, 300, 255, 1):
        write(writers, count)
        sequencer = Sequencer(sequencers, SIGNER, tmp_path)
        sequencer.check()
        assert sequencer.sequence().entries == count
        assert (sequencer.sign(), sequencer.sign()) == (1, 0)

    found = report(database_url, tmp_path)

    assert found.findings == []
    assert (found.leaves, found.checkpoints, found.pending) == (559, 4, 0)
    assert found.unknown == {"later": 559}


def test_an_entry_is_behind_until_a_checkpoint_covers_it(
    sequencers: sessionmaker[Session], writers: sessionmaker[Session], tmp_path: Path
) -> None:
    sequencer = Sequencer(sequencers, SIGNER, tmp_path)
    sequencer.check()
    assert sequencer.unsigned_age() == 0.0

    write(writers, 3)
    waiting = sequencer.unsigned_age()
    sequencer.sequence()
    placed = sequencer.unsigned_age()
    sequencer.sign()

    assert 0.0 < waiting < placed
    assert sequencer.unsigned_age() == 0.0
    write(writers, 1)
    assert sequencer.unsigned_age() > 0.0


def test_two_at_once_give_each_entry_one_place(
    sequencers: sessionmaker[Session], writers: sessionmaker[Session], database_url: str, tmp_path: Path
) -> None:
    both = [Sequencer(sequencers, SIGNER, tmp_path) for _ in range(2)]
    for number in range(6):
        write(writers, 100)
        both[number % 2].sequence()
        both[number % 2].sign()

    found = report(database_url, tmp_path)

    assert (found.findings, found.leaves, found.checkpoints) == ([], 600, 6)


def test_a_look_up_takes_more_commitments_than_a_statement_has_parameters(
    sequencers: sessionmaker[Session],
) -> None:
    commitments = [number.to_bytes(32, "big") for number in range(70_000)]

    with sequencers() as session:
        assert tree.list_known(session, TENANT, commitments) == set()
        assert StoredLog(session, TENANT).find(commitments) == {}


def test_a_copied_commitment_gets_no_second_place_and_stops_nothing(
    sequencers: sessionmaker[Session], writers: sessionmaker[Session], database_url: str, tmp_path: Path
) -> None:
    sequencer = Sequencer(sequencers, SIGNER, tmp_path)
    with psycopg.connect(database_url, autocommit=True) as owner:
        for _ in range(2):
            owner.execute("INSERT INTO log_pending (kind, commitments) VALUES ('later', sha256('a'))")
            owner.execute("INSERT INTO log_pending (kind, commitments) VALUES ('later', sha256('b'))")
            sequencer.sequence()

    assert report(database_url, tmp_path).leaves == 2
    write(writers, 1)
    assert sequencer.sequence() == (1, 0, 1)


def test_another_tenant_has_a_log_of_its_own(
    sequencers: sessionmaker[Session], writers: sessionmaker[Session], database_url: str, tmp_path: Path
) -> None:
    other = uuid.uuid4()
    write(writers, 2)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO log_pending (tenant_id, kind, commitments) VALUES (%s, 'later', sha256('a'))",
            [other],
        )
    sequencer = Sequencer(sequencers, SIGNER, tmp_path)
    sequencer.sequence()

    assert sequencer.sign() == 2
    assert folder.tenants(tmp_path) == sorted([TENANT, other])
    assert report(database_url, tmp_path).findings == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "DELETE FROM log_leaves WHERE seq = 4",
            f"tenant {TENANT}: the log has 4 entries, and 5 were signed",
        ),
        ("UPDATE log_leaves SET kind = 'canary' WHERE seq = 2", "other entries among the first 5"),
    ],
)
def test_a_changed_log_is_not_signed_any_more(  # noqa: PLR0917  # fixtures
    sequencers: sessionmaker[Session],
    writers: sessionmaker[Session],
    database_url: str,
    tmp_path: Path,
    change: str,
    says: str,
) -> None:
    write(writers, 5)
    sequencer = Sequencer(sequencers, SIGNER, tmp_path)
    sequencer.sequence()
    sequencer.sign()
    with psycopg.connect(database_url, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.RestrictViolation, match="only ever added"):
            owner.execute(change.encode())
        owner.execute("ALTER TABLE log_leaves DISABLE TRIGGER refuse_change")
        owner.execute(change.encode())
    write(writers, 1)

    with pytest.raises(NotAnExtensionError, match=says):
        Sequencer(sequencers, SIGNER, tmp_path).check()
    with pytest.raises(NotAnExtensionError, match=says):
        Sequencer(sequencers, SIGNER, tmp_path).sequence()
    assert report(database_url, tmp_path).findings != []


def test_a_killed_append_is_completed_and_a_strange_end_is_not(
    sequencers: sessionmaker[Session], writers: sessionmaker[Session], database_url: str, tmp_path: Path
) -> None:
    write(writers, 5)
    sequencer = Sequencer(sequencers, SIGNER, tmp_path)
    sequencer.sequence()
    sequencer.sign()
    [file] = (tmp_path / str(TENANT)).iterdir()
    whole = file.read_bytes()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("TRUNCATE log_pending")
        owner.execute("ALTER TABLE log_checkpoints DISABLE TRIGGER refuse_change")
        owner.execute("DELETE FROM log_checkpoints")  # as if the append had not returned

    file.write_bytes(whole[:-30])
    again = Sequencer(sequencers, SIGNER, tmp_path)
    again.check()
    again.sign()

    assert file.read_bytes() == whole
    assert report(database_url, tmp_path).findings == []
    file.write_bytes(whole + b"something else")
    write(writers, 1)
    again.sequence()
    with pytest.raises(folder.FolderError, match="part of a note"):
        again.sign()
