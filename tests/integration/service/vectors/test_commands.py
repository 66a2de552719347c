"""`subtext vectors` on a real store: what it says, changes and writes into the access log."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.store.access.tables import AccessEntry
from service.store.evidence.tables import LogPending
from service.store.tenants import scope
from service.store.vectors import keys, rows, sealing
from service.store.vectors.tables import Vector
from service.vectors import command
from tests.integration.service import seed
from tests.support.erasing import plant

Sessions = sessionmaker[Session]
AT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.fixture
def key_file(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "vectors.key"
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)
    monkeypatch.setenv("SUBTEXT_VECTORS_KEY_FILE", str(file))
    assert command.run(["keygen", str(file)]) == 0
    return file


def keep(
    sessions: Sessions, key_file: Path, expires_at: dt.datetime, sample_id: uuid.UUID | None = None
) -> rows.NewVector:
    new = rows.NewVector(
        sample_id=sample_id or uuid.uuid4(),
        captured_at=AT,
        dtype="float32",
        d_model=2,
        values=bytes(8),
        expires_at=expires_at,
    )
    wrapping = sealing.parse(key_file.read_text(), named="")
    with sessions.begin() as session:
        key = keys.key_in_use(session, scope.DEFAULT_ID, wrapping)
        rows.add_vectors(session, scope.DEFAULT_ID, key, [new])
    return new


def test_keys_are_rotated_and_destroyed_and_both_are_in_the_logs(
    sessions: Sessions, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = keep(sessions, key_file, dt.datetime.now(dt.UTC) + dt.timedelta(days=1))

    assert command.run(["rotate", "--tenant", "default"]) == 0
    assert command.run(["list", "--tenant", "default"]) == 0
    listed = capsys.readouterr().out
    assert "  retired  " in listed
    assert "  in use  " in listed
    assert command.run(["destroy", "--tenant", "default"]) == 0
    assert "destroyed 2 keys" in capsys.readouterr().out
    assert command.run(["destroy", "--tenant", "default"]) == 2
    assert "no key to destroy" in capsys.readouterr().err

    with sessions() as session:
        vector = rows.get_vector(session, new.sample_id, new.captured_at)
        assert vector is not None
        with pytest.raises(sealing.SealingError, match="was destroyed"):
            rows.opened(session, vector, sealing.parse(key_file.read_text(), named=""))
        entries = session.scalars(select(AccessEntry).order_by(AccessEntry.seq)).all()
        assert [(one.operation, one.subject_kind, one.subjects_total) for one in entries] == [
            ("vectors rotate", "vector_key", 1),
            ("vectors destroy", "vector_key", 2),
        ]
        pending = select(func.count()).select_from(LogPending).where(LogPending.kind == "access")
        assert session.scalar(pending) == 2


def test_only_what_is_over_and_under_no_hold_is_deleted(
    sessions: Sessions, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = dt.datetime.now(dt.UTC)
    keep(sessions, key_file, now - dt.timedelta(hours=1))
    kept = keep(sessions, key_file, now + dt.timedelta(days=1))
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        held = plant(session, "held", positions=1, at=AT).samples[0]
        seed.add_hold(session, request="held")
    keep(sessions, key_file, now - dt.timedelta(hours=1), held)

    assert command.run(["expire"]) == 0

    assert capsys.readouterr().out.endswith("deleted 1 vectors\n")
    with sessions() as session:
        assert set(session.scalars(select(Vector.sample_id))) == {kept.sample_id, held}


def test_what_is_missing_is_named(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, named in (
        (["rotate", "--tenant", "nobody"], "there is no tenant 'nobody'"),
        (["keygen", str(key_file)], "File exists"),
    ):
        assert command.run(arguments) == 2
        assert named in capsys.readouterr().err
    key_file.chmod(0o644)
    assert command.run(["rotate", "--tenant", "default"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    monkeypatch.delenv("SUBTEXT_VECTORS_KEY_FILE")
    assert command.run(["rotate", "--tenant", "default"]) == 2
    assert "SUBTEXT_VECTORS_KEY_FILE is not set" in capsys.readouterr().err
