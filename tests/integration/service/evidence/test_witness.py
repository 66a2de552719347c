"""A witness cosigns one history, and who verifies with it finds a log that has shown it another."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from service import witnessing
from service.evidence import cosignature, note
from service.sequencer.sequencer import Sequencer
from service.store.engine import create_engine, session_factory
from service.store.evidence.append import append
from service.verifying import run as verify
from service.witnessing import OtherHistoryError, Witness

SIGNER = note.generate("subtext.example")
COSIGNER = cosignature.generate("witness.example")


@pytest.fixture
def readers(reader_url: str) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(reader_url)
    yield session_factory(engine)
    engine.dispose()


def grow(owners: sessionmaker[Session], checkpoints: Path, count: int) -> None:
    with owners.begin() as session:
        append(session, "later", [{"number": number} for number in range(count)])
    sequencer = Sequencer(owners, SIGNER, checkpoints)
    sequencer.sequence()
    assert sequencer.sign() == 1


def start_anew(database_url: str, checkpoints: Path) -> None:
    """Let whoever has key, folder and database write another history."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("TRUNCATE log_leaves, log_nodes, log_checkpoints")
    for one in checkpoints.iterdir():
        shutil.rmtree(one)


def test_another_history_is_not_cosigned_and_is_found_by_who_verifies(  # noqa: PLR0917  # fixtures
    owners: sessionmaker[Session],
    readers: sessionmaker[Session],
    database_url: str,
    reader_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [tmp_path / name for name in ("checkpoints", "cosignatures")]
    checkpoints, cosignatures = folders
    for one in folders:
        one.mkdir()
    log_key, witness_key = tmp_path / "log.pub", tmp_path / "witness.pub"
    log_key.write_text(SIGNER.verifier.encode())
    witness_key.write_text(COSIGNER.verifier.encode())
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    arguments = ["--checkpoints", str(checkpoints), "--public-key", str(log_key)]
    witnessed = [*arguments, "--witness", str(witness_key), "--cosignatures", str(cosignatures)]
    witness = Witness(COSIGNER, SIGNER.verifier, checkpoints, cosignatures)

    grow(owners, checkpoints, 300)
    assert verify(witnessed) == 1
    assert "cosignature_missing" in capsys.readouterr().out
    with readers() as session:
        assert (witness.look(session), witness.look(session)) == (1, 0)
    grow(owners, checkpoints, 7)
    with readers() as session:
        assert witness.look(session) == 1
    assert verify(witnessed) == 0
    assert '"entries_cosigned": 307' in capsys.readouterr().out

    # Rolled back, then grown past what was cosigned: alone, the log and its checkpoints fit each other.
    for count, says in ((5, "307 were cosigned"), (400, "is not the beginning of")):
        start_anew(database_url, checkpoints)
        grow(owners, checkpoints, count)
        with readers() as session, pytest.raises(OtherHistoryError, match=says):
            witness.look(session)
        assert verify(arguments) == 0
        assert verify(witnessed) == 1
        assert "split_view" in capsys.readouterr().out


def test_the_command_makes_a_key_and_says_what_it_refuses(  # noqa: PLR0917  # fixtures
    owners: sessionmaker[Session],
    database_url: str,
    reader_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, log_key = tmp_path / "key", tmp_path / "log.pub"
    log_key.write_text(SIGNER.verifier.encode())
    checkpoints, cosignatures = tmp_path / "checkpoints", tmp_path / "cosignatures"
    checkpoints.mkdir()
    assert witnessing.run(["keygen", str(key), "--name", "witness.example"]) == 0
    assert capsys.readouterr().out.startswith("witness.example+")
    assert key.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    arguments = [
        "--key", str(key), "--public-key", str(log_key), "--checkpoints", str(checkpoints),
        "--cosignatures", str(cosignatures), "--once",
    ]  # fmt: skip

    assert witnessing.run(arguments) == 2
    assert "cosignatures is no folder" in capsys.readouterr().err
    cosignatures.mkdir()
    grow(owners, checkpoints, 3)
    assert witnessing.run(arguments) == 0
    start_anew(database_url, checkpoints)
    grow(owners, checkpoints, 2)
    assert witnessing.run(arguments) == 1
    assert "3 were cosigned" in capsys.readouterr().err
