import datetime as dt
import os
import signal
import subprocess
import sys
import urllib.request
from urllib.error import URLError

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service import auth, commands
from service.store import keys
from service.store.tables import ApiKey
from tests.support.services import free_port
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)


def test_a_created_key_works_at_once_and_no_longer_when_revoked(
    client: TestClient, capsys: pytest.CaptureFixture[str], sessions: sessionmaker[Session]
) -> None:
    assert (
        commands.key(["create", "--name", "me", "--scope", "explanations:read", "--expires-in-days", "1"])
        == 0
    )
    secret = capsys.readouterr().out.strip()
    assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200

    assert commands.key(["list"]) == 0
    line = capsys.readouterr().out
    identity = line.split()[0]
    assert "explanations:read" in line
    assert secret not in line
    assert commands.key(["revoke", identity]) == 0
    assert client.get("/v1/models", headers={"X-API-Key": secret}).json()["code"] == "revoked_key"
    assert commands.key(["revoke", identity]) == 1
    assert commands.key(["revoke", "nonsense"]) == 2

    with sessions() as session:
        [stored] = keys.list_keys(session)
        assert stored.secret_sha256 == auth.digest(secret)


def stored(sessions: sessionmaker[Session]) -> list[ApiKey]:
    with sessions() as session:
        return keys.list_keys(session)


def days_left(key: ApiKey) -> float | None:
    if key.expires_at is None:
        return None
    return round((key.expires_at - dt.datetime.now(dt.UTC)) / dt.timedelta(days=1), 2)


def test_a_key_expires_after_a_lifetime_unless_told_otherwise(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = ["create", "--name", "me", "--scope", "flags:read"]

    assert commands.key(create) == 0
    assert commands.key([*create, "--expires-in-days", "1"]) == 0
    assert commands.key([*create, "--never-expires"]) == 0
    monkeypatch.setenv("SUBTEXT_KEY_LIFETIME_DAYS", "30")
    assert commands.key(create) == 0

    assert [days_left(key) for key in stored(sessions)] == [90, 1, None, 30]


def test_after_a_rotation_both_keys_work_and_the_old_one_only_for_a_while(
    client: TestClient, capsys: pytest.CaptureFixture[str], sessions: sessionmaker[Session]
) -> None:
    commands.key(["create", "--name", "me", "--scope", "flags:read", "--scope", "explanations:read"])
    old_secret = capsys.readouterr().out.strip()
    [old] = stored(sessions)

    assert commands.key(["rotate", str(old.id), "--overlap-days", "2"]) == 0

    new_secret = capsys.readouterr().out.strip()
    old, new = stored(sessions)
    assert (new.name, new.scopes) == (old.name, old.scopes)
    assert (days_left(old), days_left(new)) == (2, 90)
    for secret in (old_secret, new_secret):
        assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200

    assert commands.key(["rotate", str(old.id)]) == 0  # longer than it has: it stays at two days
    assert days_left(stored(sessions)[0]) == 2
    assert commands.key(["revoke", str(old.id)]) == 0
    assert commands.key(["rotate", str(old.id)]) == 1
    assert commands.key(["rotate", "nonsense"]) == 2
    assert "no valid key" in capsys.readouterr().err


def test_migrate_is_repeatable_and_check_changes_nothing(
    capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    from service.store import migrate

    migrate.downgrade(database_url, "base")

    assert commands.migrate(["--check"]) == 1
    assert commands.migrate([]) == 0
    assert commands.migrate([]) == 0
    assert commands.migrate(["--check"]) == 0
    assert "database at nothing, head is" in capsys.readouterr().out


def test_the_service_process_answers_and_ends_cleanly_on_sigterm() -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "service"],
        env={**os.environ, "SUBTEXT_HTTP_PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert _body(f"http://127.0.0.1:{port}/readyz", process)
        assert b"list_explanations" in _body(f"http://127.0.0.1:{port}/openapi.json", process)
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=20)
    finally:
        process.kill()

    assert process.returncode == 0
    assert all(line.startswith("{") for line in logged.splitlines())
    assert '"event": "service_starts"' in logged


def _body(url: str, process: "subprocess.Popen[str]") -> bytes:
    """Return what the URL answers once something listens there."""

    def read() -> bytes | None:
        assert process.poll() is None, f"ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310  # our own http:// address
                return bytes(answer.read())
        except URLError:
            return None

    body = wait_until(f"an answer of {url}", read, 60)
    assert body is not None
    return body
