"""What known keys are denied, and what is done to keys, is in the log."""

import os
import pwd

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service import auth, commands
from service.store import keys
from tests.integration.service.access.stored import Entries


def test_a_key_that_was_made_rotated_and_revoked_has_an_entry_for_each_and_for_what_it_was_denied(
    *,
    client: TestClient,
    database_url: str,
    entries: Entries,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    me = pwd.getpwuid(os.getuid()).pw_name

    assert (
        commands.key(["create", "--name", "me", "--scope", "flags:read", "--scope", "coverage:read"]) == 0
    )
    secret = capsys.readouterr().out.strip()
    [created] = entries()
    [first] = created.subject_ids
    assert commands.key(["rotate", str(first), "--never-expires"]) == 0
    [rotated] = entries()
    assert commands.key(["revoke", str(first)]) == 0
    [revoked] = entries()
    assert commands.key(["revoke", str(first)]) == 1
    answers = [client.get("/v1/flags", headers={"X-API-Key": secret}) for _ in range(3)]
    [denied] = entries()

    for entry, command in ((created, "create"), (rotated, "rotate"), (revoked, "revoke")):
        assert (entry.action, entry.operation, entry.result) == ("key_change", f"key {command}", "done")
        assert (entry.os_user, entry.key_id, entry.subject_kind) == (me, None, "api_key")
        assert entry.database_login == "postgres"
        assert secret not in str([getattr(entry, column.key) for column in entry.__table__.columns])
    assert created.details["scopes"] == ["coverage:read", "flags:read"]
    assert created.details["expires_at"] != "never"
    with sessions() as session:
        assert set(rotated.subject_ids) == {key.id for key in keys.list_keys(session)}
    assert rotated.details == {
        "role": None,
        "scopes": ["coverage:read", "flags:read"],
        "models": None,
        "expires_at": "never",
    }
    assert revoked.subject_ids == [first]
    assert {answer.status_code for answer in answers} == {401}
    assert (denied.action, denied.result, denied.status) == ("deny", "revoked_key", 401)
    assert (denied.key_id, denied.key_name, denied.operation) == (first, "me", "list_flags")


def test_unknown_keys_are_in_no_entry(client: TestClient, entries: Entries) -> None:
    client.get("/v1/flags", headers={"X-API-Key": auth.new_secret()})
    client.get("/v1/flags")

    assert entries() == []


def test_a_denial_that_cannot_be_logged_is_a_denial_and_counted(
    client: TestClient, database_url: str, sessions: sessionmaker[Session]
) -> None:
    secret = auth.new_secret()
    with sessions.begin() as session:
        keys.add_key(session, name="x", secret_sha256=auth.digest(secret), scopes=[])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE access_log ADD CONSTRAINT is_full CHECK (false) NOT VALID")

    answer = client.get("/v1/flags", headers={"X-API-Key": secret})

    assert answer.status_code == 403
    assert 'subtext_api_access_log_failures_total{action="deny"} 1.0' in client.get("/metrics").text
