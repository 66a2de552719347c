"""`subtext tenant`, and keys that are made for a tenant, for models and by role."""

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service import auth, commands
from service.store import identity, keys
from service.store.tables import ApiKey


@pytest.fixture(autouse=True)
def _environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)


def stored(sessions: sessionmaker[Session]) -> list[ApiKey]:
    with sessions() as session:
        return keys.list_keys(session)


def test_a_key_is_made_by_role_for_a_tenant_and_a_model_and_again_by_rotation(
    client: TestClient, capsys: pytest.CaptureFixture[str], sessions: sessionmaker[Session]
) -> None:
    assert commands.tenant(["create", "acme"]) == 0
    assert commands.tenant(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["acme", "default"]
    wanted = ["--role", "reviewer", "--tenant", "acme", "--model", "m2", "--model", "m1", "--name", "ann"]

    assert commands.key(["create", *wanted]) == 0

    secret = capsys.readouterr().out.strip()
    [key] = stored(sessions)
    assert client.get("/v1/models", headers={"X-API-Key": secret}).json() == {"items": []}
    assert commands.key(["rotate", str(key.id)]) == 0
    for one in stored(sessions):
        assert (one.tenant_id, one.models, one.role) == (
            identity.tenant_id("acme"),
            ["m1", "m2"],
            "reviewer",
        )
        assert set(one.scopes) == set(auth.SCOPES[auth.Role.REVIEWER])
    capsys.readouterr()
    assert commands.key(["list"]) == 0
    assert "  acme  models m1,m2  reviewer (" in capsys.readouterr().out


def test_what_cannot_be_a_tenant_is_refused_with_the_fix(
    capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    unknown = ["create", "--role", "reader", "--tenant", "nobody", "--name", "ann"]
    assert commands.key(unknown) == 2
    assert "subtext tenant create nobody" in capsys.readouterr().err
    for name, told in (("Acme", "a-z"), ("default", "already")):
        assert commands.tenant(["create", name]) == 2
        assert told in capsys.readouterr().err
    # As on a server where nobody may make the roles.
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE flags NO FORCE ROW LEVEL SECURITY")

    assert commands.tenant(["create", "acme"]) == 2
    assert "subtext migrate" in capsys.readouterr().err
    assert commands.key(["create", "--role", "reader", "--name", "ann", "--model", "m1"]) == 2
    assert "subtext migrate" in capsys.readouterr().err


def test_an_operator_says_for_how_long_removals_wait(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.tenant(["wait", "default", "24"]) == 0
    capsys.readouterr()
    assert commands.tenant(["list"]) == 0
    assert "removals wait 24 h" in capsys.readouterr().out
    for name, hours, told in (
        ("default", "0", "1 to 336"),
        ("default", "337", "1 to 336"),
        ("x", "9", "x"),
    ):
        assert commands.tenant(["wait", name, hours]) == 2
        assert told in capsys.readouterr().err
