"""Checkpoints are timestamped by an authority, and who verifies finds a log that it has seen another of."""

import datetime as dt
import json
import shutil
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from service import timestamping
from service.evidence import note
from service.sequencer.sequencer import Sequencer
from service.store.evidence.append import append
from service.verifying import run as verify
from tests.support.authority import OpenSslAuthority, make_authority, serve

SIGNER = note.generate("subtext.example")


@pytest.fixture
def authority(tmp_path: Path) -> OpenSslAuthority:
    return make_authority(tmp_path / "authority")


@pytest.fixture
def place(tmp_path: Path, reader_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the log's key and the folders of checkpoints and timestamps."""
    for name in ("checkpoints", "timestamps"):
        (tmp_path / name).mkdir()
    (tmp_path / "log.pub").write_text(SIGNER.verifier.encode())
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    return tmp_path


def arguments(place: Path, authority: OpenSslAuthority) -> list[str]:
    return [
        "--checkpoints", str(place / "checkpoints"), "--public-key", str(place / "log.pub"),
        "--timestamps", str(place / "timestamps"), "--roots", str(authority.roots),
    ]  # fmt: skip


def grow(owners: sessionmaker[Session], place: Path, count: int) -> None:
    with owners.begin() as session:
        append(session, "later", [{"number": number} for number in range(count)])
    sequencer = Sequencer(owners, SIGNER, place / "checkpoints")
    sequencer.sequence()
    assert sequencer.sign() == 1


def stamp(place: Path, authority: OpenSslAuthority, url: str) -> int:
    return timestamping.run([*arguments(place, authority), "--authority", url, "--once"])


def told(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], dict[str, object]]:
    *findings, counts = capsys.readouterr().out.splitlines()
    return findings, json.loads(counts)


def test_another_history_than_the_timestamped_one_is_found(
    owners: sessionmaker[Session],
    database_url: str,
    place: Path,
    authority: OpenSslAuthority,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = arguments(place, authority)
    grow(owners, place, 300)
    assert verify(asked) == 1
    assert "timestamp_missing" in capsys.readouterr().out
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with serve(authority) as url:
        assert [stamp(place, authority, url) for _ in range(2)] == [0, 0]
        grow(owners, place, 7)
        assert stamp(place, authority, url) == 0
    kept = sorted((place / "timestamps").glob("*/*.tsr"))
    assert [int(one.stem) for one in kept] == [300, 307]
    for response in kept:
        authority.check(response.with_suffix(".note"), response)

    assert verify(asked) == 0
    findings, counts = told(capsys)
    assert findings == []
    assert (counts["entries_timestamped"], counts["timestamps"]) == (307, 2)
    assert dt.datetime.fromisoformat(str(counts["timestamped_from"])) >= before
    assert 0 <= float(str(counts["longest_to_timestamp_seconds"])) < 600

    # Key, folder and database together make another past, which fits itself. The authority's is kept.
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("TRUNCATE log_leaves, log_nodes, log_checkpoints")
    for one in (place / "checkpoints").iterdir():
        shutil.rmtree(one)
    grow(owners, place, 305)
    assert verify(asked[:4]) == 0
    capsys.readouterr()
    assert verify(asked) == 1
    findings, _ = told(capsys)
    assert any("split_view  entries 0 to 299" in one for one in findings)
    assert any("split_view  entries 305 to 306" in one for one in findings)


def test_what_is_not_the_authoritys_word_counts_for_nothing(
    owners: sessionmaker[Session],
    place: Path,
    authority: OpenSslAuthority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stranger = make_authority(tmp_path / "stranger")
    grow(owners, place, 3)
    with serve(stranger) as url:
        assert stamp(place, authority, url) == 1
        assert "does not hold" in capsys.readouterr().err
        assert stamp(place, stranger, url) == 0
    assert verify(arguments(place, authority)) == 1
    assert "timestamp_unreadable" in capsys.readouterr().out

    [note_file] = (place / "timestamps").glob("*/*.note")
    note_file.unlink()
    assert verify(arguments(place, stranger)) == 1
    assert "timestamp_missing" in capsys.readouterr().out


def test_an_authority_that_is_away_is_asked_again(
    owners: sessionmaker[Session],
    place: Path,
    authority: OpenSslAuthority,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grow(owners, place, 3)
    with serve(authority) as url:
        for path, says in (("/busy", "answers 503"), ("/endless", "over 65536 bytes")):
            assert stamp(place, authority, f"{url}{path}") == 1
            assert says in capsys.readouterr().err
        assert list((place / "timestamps").iterdir()) == []
        assert stamp(place, authority, url) == 0
    assert stamp(place, authority, "ftp://authority.example") == 2
    assert "--authority" in capsys.readouterr().err


def test_bad_use_names_what_is_missing(
    place: Path, authority: OpenSslAuthority, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = arguments(place, authority)
    with pytest.raises(SystemExit):
        verify(asked[:6])
    assert "--timestamps and --roots go together" in capsys.readouterr().err
    (place / "none.pem").write_text("none")
    assert verify([*asked[:6], "--roots", str(place / "none.pem")]) == 2
    assert "no PEM" in capsys.readouterr().err
    assert verify([*asked[:4], "--timestamps", str(place / "nowhere"), *asked[6:]]) == 2
    assert "is no folder" in capsys.readouterr().err
