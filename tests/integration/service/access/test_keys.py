"""Keys over REST: nobody makes one that may do more than he may, and the database sees to it."""

import datetime as dt
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from psycopg.errors import CheckViolation
from sqlalchemy import func, update
from sqlalchemy.orm import Session, sessionmaker

from service import auth, commands
from service.store import keys
from service.store.access.tables import Action
from service.store.tables import ApiKey
from service.store.tenants import scope
from tests.integration.service import seed
from tests.integration.service.access.stored import Entries
from tests.support.people import sign_in
from tests.support.waiting import wait_until

Headers = dict[str, str]
Sessions = sessionmaker[Session]
PURPOSE = {"Subtext-Purpose": "compliance_review; a new shift"}
OPERATOR = [str(one) for one in auth.SCOPES[auth.Role.OPERATOR]]
MAKE = (
    "SELECT subtext_make_key(%s, gen_random_uuid(), 'n', %s, %s, NULL, %s, now() + %s * interval '1 day')"
)


@pytest.fixture
def make(sessions: Sessions) -> Callable[..., tuple[uuid.UUID, str]]:
    """Makes a key as its owner does; returns id and secret."""

    def create(
        *scopes: str, models: list[str] | None = None, expired: bool = False
    ) -> tuple[uuid.UUID, str]:
        secret = auth.new_secret()
        expires_at = dt.datetime.now(dt.UTC) - dt.timedelta(days=1) if expired else None
        with sessions.begin() as session:
            made = keys.add_key(
                session,
                name="maker",
                secret_sha256=auth.digest(secret),
                scopes=scopes,
                models=models,
                expires_at=expires_at,
            )
        return made.id, secret

    return create


def ask(client: TestClient, secret: str, **changes: Any) -> Response:
    body = {"name": "night shift", "scopes": ["coverage:read"], "own_secret": secret, **changes}
    return client.post("/v1/keys", json=body, headers={"Authorization": f"Bearer {secret}", **PURPOSE})


def test_a_key_that_was_made_works_and_its_secret_is_in_one_answer(
    client: TestClient, make: Callable[..., tuple[uuid.UUID, str]], entries: Entries
) -> None:
    maker, secret = make(*OPERATOR)

    answer = ask(client, secret, expires_in_days=30)

    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (made["key"]["scopes"], made["key"]["state"]) == (["coverage:read"], "valid")
    [entry] = entries()
    assert (entry.action, entry.operation, entry.key_id) == (Action.KEY_CHANGE, "make_key", maker)
    assert (entry.purpose, entry.purpose_note) == ("compliance_review", "a new shift")
    assert [str(one) for one in entry.subject_ids] == [made["key"]["id"]]
    used = client.get("/v1/retention", headers={"Authorization": f"Bearer {made['secret']}"})
    assert used.status_code == 200
    listed = client.get("/v1/keys", headers={"Authorization": f"Bearer {secret}"})
    assert made["secret"] not in listed.text
    assert {one["name"]: one["is_own"] for one in listed.json()["items"]} == {
        "night shift": False,
        "maker": True,
    }
    assert "keys:write" in listed.json()["grantable_scopes"]
    assert "admin" not in listed.json()["grantable_scopes"]
    assert listed.json()["grantable_roles"] == ["operator"]


@pytest.mark.parametrize("asked", [["admin"], ["explanations:read_text"]], ids=["admin", "text"])
def test_no_key_may_do_more_than_its_maker(
    client: TestClient,
    make: Callable[..., tuple[uuid.UUID, str]],
    entries: Entries,
    asked: list[str],
) -> None:
    _, secret = make(*OPERATOR)

    answer = ask(client, secret, scopes=asked)

    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    [entry] = entries()
    assert (entry.action, entry.operation) == (Action.DENY, "make_key")


def test_no_key_reads_more_models_than_its_maker(
    client: TestClient, make: Callable[..., tuple[uuid.UUID, str]]
) -> None:
    _, secret = make(*OPERATOR, models=["a", "b"])

    other = ask(client, secret, models=["a", "c"])
    own = ask(client, secret)

    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "models")
    assert own.json()["key"]["models"] == ["a", "b"]
    assert ask(client, secret, models=["b"]).json()["key"]["models"] == ["b"]


def test_a_session_alone_makes_no_key(client: TestClient, sessions: Sessions, entries: Entries) -> None:
    with sessions.begin() as session:
        browser = sign_in(session, "person")
    headers = {**browser, **PURPOSE, "Sec-Fetch-Site": "same-origin"}
    body = {"name": "n", "role": "reader", "own_secret": auth.new_secret()}

    answer = client.post("/v1/keys", json=body, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (403, "own_secret_unknown_key")
    [entry] = entries()
    assert (entry.action, entry.person) == (Action.DENY, "person")


def test_with_the_secret_of_a_key_that_may_a_person_makes_what_both_may(
    client: TestClient, sessions: Sessions, make: Callable[..., tuple[uuid.UUID, str]]
) -> None:
    _, secret = make(*OPERATOR)
    with sessions.begin() as session:
        browser = sign_in(session, "person")
    headers = {**browser, **PURPOSE, "Sec-Fetch-Site": "same-origin"}

    def send(*scopes: str) -> Response:
        body = {"name": "n", "scopes": scopes, "own_secret": secret}
        return client.post("/v1/keys", json=body, headers=headers)

    assert send("coverage:read").status_code == 200
    assert send("flags:read").json()["code"] == "own_secret_other_scopes"


def test_each_change_needs_a_purpose(
    client: TestClient, make: Callable[..., tuple[uuid.UUID, str]]
) -> None:
    identity, secret = make(*OPERATOR)
    bearer = {"Authorization": f"Bearer {secret}"}
    body = {"name": "n", "scopes": ["coverage:read"], "own_secret": secret}

    for path, sent in (("/v1/keys", body), (f"/v1/keys/{identity}/revoke", None)):
        answer = client.post(path, json=sent, headers=bearer)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Subtext-Purpose")


def test_a_revoked_key_is_denied_and_stays_revoked(
    client: TestClient, make: Callable[..., tuple[uuid.UUID, str]], entries: Entries
) -> None:
    _, secret = make(*OPERATOR)
    made = ask(client, secret).json()
    entries()
    path = f"/v1/keys/{made['key']['id']}/revoke"
    headers = {"Authorization": f"Bearer {secret}", **PURPOSE}

    first, second = client.post(path, headers=headers), client.post(path, headers=headers)

    assert (first.status_code, first.json()["state"]) == (200, "revoked")
    assert (second.status_code, second.json()["code"]) == (409, "revoked_already")
    assert [entry.operation for entry in entries()] == ["revoke_key"]
    denied = client.get("/v1/retention", headers={"Authorization": f"Bearer {made['secret']}"})
    assert (denied.status_code, denied.json()["code"]) == (401, "revoked_key")


def test_with_a_key_goes_all_that_it_made(
    client: TestClient, make: Callable[..., tuple[uuid.UUID, str]], entries: Entries, sessions: Sessions
) -> None:
    scopes = ["coverage:read", "keys:read", "keys:write"]
    root, secret = make(*OPERATOR)
    child, other = (ask(client, secret, scopes=scopes).json() for _ in range(2))
    grandchild = ask(client, child["secret"], scopes=["coverage:read"]).json()
    bearer = {"Authorization": f"Bearer {secret}", **PURPOSE}
    made = entries()

    revoked = client.post(f"/v1/keys/{child['key']['id']}/revoke", headers=bearer).json()

    ids = [str(root), *(one["key"]["id"] for one in (child, other, grandchild))]
    # Who made each, by id, though all are of one line.
    makers = [ids[0], ids[0], ids[1]]
    assert [one["key"]["made_by"] for one in (child, other, grandchild)] == makers
    assert [entry.details["made_by"] for entry in made] == makers
    assert (revoked["state"], revoked["revoked_with"]) == ("revoked", [ids[3]])
    [entry] = entries()
    assert [*map(str, entry.subject_ids)] == [ids[1], ids[3]]

    def works(key: Any) -> bool:
        answer = client.get("/v1/retention", headers={"Authorization": f"Bearer {key['secret']}"})
        return answer.status_code == 200

    assert [works(one) for one in (child, grandchild, other)] == [False, False, True]
    with sessions.begin() as session:
        assert keys.revoke_key(session, root, dt.datetime.now(dt.UTC))
        assert keys.list_revoked_with(session, root) == [uuid.UUID(ids[2])]
    assert not works(other)


def test_keys_that_a_revocation_of_before_left_are_listed(
    *,
    client: TestClient,
    make: Callable[..., tuple[uuid.UUID, str]],
    sessions: Sessions,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)
    scopes = ["coverage:read", "keys:read", "keys:write"]
    root, secret = make(*OPERATOR)
    child = ask(client, secret, scopes=scopes).json()
    grandchild, gone = (ask(client, child["secret"], scopes=["coverage:read"]).json() for _ in range(2))
    sibling = ask(client, secret, scopes=["coverage:read"]).json()
    ids = {name: one["key"]["id"] for name, one in (("child", child), ("gone", gone))}
    with sessions.begin() as session:
        keys.revoke_key(session, uuid.UUID(ids["gone"]), dt.datetime.now(dt.UTC))
        # As of before migration 0041: no key says of which it comes, and one is revoked alone.
        session.execute(update(ApiKey).values(made_by=None, made_from=None))
        session.execute(update(ApiKey).where(ApiKey.id == ids["child"]).values(revoked_at=func.now()))

    assert commands.key(["list", "--orphans"]) == 0

    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"from {ids['child']}, revoked ")
    assert f" {grandchild['key']['id']}  valid " in line

    # As of before migration 0045: the first of its line is known, and of each key the maker by the log.
    with sessions.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id != root).values(made_from=root))
        session.execute(update(ApiKey).where(ApiKey.id == root).values(revoked_at=func.now()))
    assert commands.key(["list", "--orphans"]) == 0
    found = capsys.readouterr().out
    assert [one for one in (grandchild, sibling) if one["key"]["id"] in found] == [grandchild, sibling]
    assert ids["gone"] not in found


def test_a_key_goes_that_is_made_while_its_maker_is_revoked(
    make: Callable[..., tuple[uuid.UUID, str]], sessions: Sessions, reader_url: str
) -> None:
    root, secret = make(*OPERATOR)
    child = auth.new_secret()
    with (
        psycopg.connect(reader_url) as maker,
        psycopg.connect(reader_url) as revoker,
        ThreadPoolExecutor(1) as pool,
    ):
        for connection in (maker, revoker):
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        revoker_pid = revoker.info.backend_pid
        maker.execute(MAKE, [secret, auth.digest(child), ["keys:write"], None, 1])
        revoked = pool.submit(revoker.execute, "SELECT subtext_revoke_key(%s)", [root])

        def waits() -> bool:
            blocked = maker.execute("SELECT pg_blocking_pids(%s)", [revoker_pid]).fetchone()
            return bool(blocked and blocked[0])

        wait_until("the revocation waits for who makes a key", waits, 60)
        maker.commit()
        assert revoked.result(60).fetchone() == (True,)
        revoker.commit()
    with sessions() as session:
        assert len(keys.list_revoked_with(session, root)) == 1


def test_a_key_that_may_do_more_is_not_revoked(
    client: TestClient, make: Callable[..., tuple[uuid.UUID, str]], entries: Entries
) -> None:
    wide, _ = make("admin")
    _, secret = make(*OPERATOR)
    headers = {"Authorization": f"Bearer {secret}", **PURPOSE}

    answer = client.post(f"/v1/keys/{wide}/revoke", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (403, "key_may_do_more")
    assert [entry.action for entry in entries()] == [Action.DENY]
    assert client.post(f"/v1/keys/{uuid.uuid4()}/revoke", headers=headers).status_code == 404


def test_whoever_takes_the_service_over_makes_no_key_without_a_secret(
    reader_url: str, make: Callable[..., tuple[uuid.UUID, str]]
) -> None:
    _, operator = make(*OPERATOR)
    _, narrow = make(*OPERATOR, models=["a"])
    _, plain = make("coverage:read")
    _, expired = make("admin", expired=True)
    _, admin = make("admin")
    new, scopes = bytes(32), ["coverage:read"]
    with psycopg.connect(reader_url, autocommit=True) as connection:
        connection.execute("SELECT set_config(%s, %s, false)", [scope.SETTING, str(scope.DEFAULT_ID)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO api_keys (id, name) VALUES (gen_random_uuid(), 'n')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE api_keys SET revoked_at = NULL")

        def made(*values: Any) -> Any:
            row = connection.execute(MAKE, list(values)).fetchone()
            return row and row[0]

        assert made("made up", new, scopes, None, 1) == "unknown_key"
        assert made(expired, new, scopes, None, 1) == "unknown_key"
        assert made(plain, new, scopes, None, 1) == "not_allowed"
        assert made(operator, new, ["admin"], None, 1) == "other_scopes"
        assert made(narrow, new, scopes, None, 1) == "other_models"
        assert made(narrow, new, scopes, ["a", "b"], 1) == "other_models"
        assert made(admin, new, scopes, None, 400) == "too_long"
        # Of another tenant.
        connection.execute("SELECT set_config(%s, %s, false)", [scope.SETTING, str(uuid.uuid4())])
        assert made(admin, new, scopes, None, 1) == "unknown_key"
        # Without one.
        connection.execute("SELECT set_config(%s, '', false)", [scope.SETTING])
        assert made(admin, new, scopes, None, 1) == "unknown_key"


def test_keys_of_one_keys_making_are_one_identity_where_two_are_needed(
    client: TestClient, sessions: Sessions, make: Callable[..., tuple[uuid.UUID, str]], reader_url: str
) -> None:
    scopes = [*OPERATOR, "erasures:read", "erasures:write"]
    first, secret = make(*scopes)
    _, of_owner = make(*scopes)
    child = ask(client, secret, scopes=scopes).json()
    grandchild = ask(client, child["secret"], scopes=scopes).json()
    with sessions.begin() as session:
        seed.add_model(session)

    def send(secret: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {secret}", "Subtext-Purpose": "subject_request"}
        answer = client.post(path, json=body, headers=headers)
        return answer.status_code, answer.json()

    _, erasure = send(secret, "/v1/erasures", scope="tenant")
    _, hold = send(secret, "/v1/legal-holds", scope={"model": "tiny"}, reason="a case")
    decide = f"/v1/erasures/{erasure['id']}/decision"
    lift = f"/v1/legal-holds/{hold['id']}/lift"
    confirm = {"decision": "confirmed", "reason": "looked at"}
    assert send(child["secret"], lift, reason="over")[0] == 200

    for other in (secret, grandchild["secret"]):
        assert send(other, decide, **confirm)[1]["code"] == "other_identity_needed"
        assert send(other, lift, reason="over")[1]["code"] == "other_key_needed"
    step = (
        "INSERT INTO legal_hold_lifts (id, hold_id, step, step_before, reason, key_id, key_name)"
        " VALUES (gen_random_uuid(), %s, 'confirmed', 'asked', 'over', %s, 'k')"
    )
    with psycopg.connect(reader_url) as connection:
        connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        with pytest.raises(CheckViolation, match="one identity"):
            connection.execute(step, [hold["id"], first])
    assert send(of_owner, decide, **confirm)[0] == 200
    assert send(of_owner, lift, reason="over")[0] == 200
