"""Sessions of keys: the cookie, what it may do, and every way in which it ends."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from service import auth, commands
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.sign_in.cookies import Cookies
from service.sign_in.plan import SignInPlan
from service.store import keys
from service.store.access.tables import AccessEntry
from service.store.engine import session_factory
from service.store.people.tables import LoginSession
from service.store.tables import ApiKey
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
COOKIE = "__Host-subtext"
OWN = {"Sec-Fetch-Site": "same-origin"}


class Clock:
    """What the application takes for now."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now

    def later(self, **by: float) -> None:
        self.now += dt.timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def built(reader: Engine, plan: SignInPlan, clock: Clock) -> FastAPI:
    return create_app(
        Resources(
            engine=reader,
            sessions=session_factory(reader),
            metrics=Metrics(CollectorRegistry()),
            plan=plan,
            clock=clock,
        )
    )


@pytest.fixture
def app(reader: Engine, clock: Clock) -> FastAPI:
    return built(reader, SignInPlan(), clock)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="https://audit.example", raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def signed_in(client: TestClient, headers_for: Callable[..., Headers]) -> TestClient:
    """The client with the session of a key that may read flags and triage."""
    headers = headers_for("flags:read", "incidents:triage", "explanations:read", "explanations:read_text")
    assert client.post("/auth/key", headers=headers).status_code == 200
    return client


def key_of(sessions: Sessions) -> uuid.UUID:
    with sessions() as session:
        return session.scalars(select(ApiKey.id)).one()


def added(sessions: Sessions) -> list[AccessEntry]:
    with sessions() as session:
        return list(session.scalars(select(AccessEntry).order_by(AccessEntry.seq)))


def test_a_key_signs_in_for_a_cookie_that_no_script_and_no_other_host_gets(
    client: TestClient, headers_for: Callable[..., Headers], sessions: Sessions
) -> None:
    answer = client.post("/auth/key", headers=headers_for("flags:read"))

    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    [written] = answer.headers.get_list("set-cookie")
    [(name, cookie)] = SimpleCookie(written).items()
    assert name == COOKIE
    assert (cookie["secure"], cookie["httponly"], cookie["path"]) == (True, True, "/")
    assert (cookie["samesite"], cookie["domain"]) == ("lax", "")
    with sessions() as session:
        [stored] = session.scalars(select(LoginSession))
    assert stored.token_sha256 == auth.digest(cookie.value)
    assert (stored.key_id, stored.person, stored.scopes) == (key_of(sessions), None, [])
    told = client.get("/auth/session").json()
    assert told == answer.json()
    assert (told["session_id"], told["key_id"]) == (str(stored.id), str(stored.key_id))
    assert (told["name"], told["scopes"], told["person"]) == ("test", ["flags:read"], None)
    [entry] = added(sessions)
    assert (entry.action, entry.operation, entry.result) == ("sign_in", "sign_in_with_key", "done")
    assert (entry.session_id, entry.key_id, entry.subject_ids) == (stored.id, stored.key_id, [stored.id])
    assert cookie.value not in str([getattr(entry, column.key) for column in entry.__table__.columns])


def test_a_session_reads_what_its_key_reads_and_text_for_a_purpose(
    signed_in: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        explanation = seed.add_explanation(session, seed.add_model(session), claims=seed.CLAIMS)
    path = f"/v1/explanations/{explanation.id}"

    without = signed_in.get(path).json()
    shown = signed_in.get(path, headers={"Subtext-Purpose": "audit"}).json()
    refused = signed_in.get("/v1/coverage")

    assert (without["text"], without["withheld"]["code"]) == (None, "missing_purpose")
    assert shown["text"] == seed.SECRET_TEXT
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
    assert refused.json()["detail"] == "this session lacks the scope coverage:read"
    _, read, denied = added(sessions)
    assert (read.action, read.purpose, read.key_name) == ("read_text", "audit", "test")
    assert read.session_id == denied.session_id is not None
    assert (denied.action, denied.result) == ("deny", "missing_scope")


def test_what_changes_something_has_to_come_from_our_own_pages(
    signed_in: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        incident = seed.add_incident(session, seed.add_flag(session, seed.add_model(session)))
    path = f"/v1/incidents/{incident.id}/transitions"
    change = {"version": 1, "to": "acknowledged", "reason_code": "under_review"}
    foreign: list[Headers] = [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://audit.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://audit.example.evil.example"},
        {"Origin": "http://audit.example"},
        {"Origin": "null"},
    ]

    for headers in foreign:
        answer = signed_in.post(path, json=change, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin"), headers
    assert added(sessions)[-1].result == "cross_origin"
    assert signed_in.post("/auth/logout").json()["code"] == "cross_origin"
    # Reading is no change, and a key in a header is nothing that a page can add.
    assert signed_in.get("/v1/incidents", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    assert signed_in.post(path, json=change, headers=OWN).status_code == 200
    with sessions() as session:
        entry = added(sessions)[-1]
        assert (entry.action, entry.key_name) == ("write", "test")
        assert entry.session_id == session.scalars(select(LoginSession.id)).one()
    again = change | {"version": 2, "to": "dismissed", "reason_code": "duplicate"}
    own = {"Origin": "https://audit.example:443"}
    assert signed_in.post(path, json=again, headers=own).status_code == 200


def test_a_session_ends_with_its_key(signed_in: TestClient, sessions: Sessions) -> None:
    assert signed_in.get("/v1/flags").status_code == 200
    with sessions.begin() as session:
        assert keys.revoke_key(session, session.scalars(select(ApiKey.id)).one(), dt.datetime.now(dt.UTC))

    answer = signed_in.get("/v1/flags")

    assert (answer.status_code, answer.json()["code"]) == (401, "revoked_key")
    assert (added(sessions)[-1].action, added(sessions)[-1].result) == ("deny", "revoked_key")


def test_a_session_ends_after_an_hour_without_use_and_after_twelve_with(
    signed_in: TestClient, clock: Clock
) -> None:
    for _ in range(12):
        clock.later(minutes=59)
        assert signed_in.get("/v1/flags").status_code == 200
    clock.later(minutes=13)
    over = signed_in.get("/v1/flags")

    assert (over.status_code, over.json()["code"]) == (401, "expired_session")


def test_a_session_that_is_not_used_is_over(
    signed_in: TestClient, clock: Clock, sessions: Sessions
) -> None:
    clock.later(minutes=60)

    answer = signed_in.get("/v1/flags")

    assert (answer.status_code, answer.json()["code"]) == (401, "expired_session")
    assert added(sessions)[-1].result == "expired_session"


def test_a_session_of_a_key_that_expires_sooner_is_over_with_it(
    client: TestClient, clock: Clock, sessions: Sessions
) -> None:
    secret, soon = auth.new_secret(), clock.now + dt.timedelta(minutes=5)
    with sessions.begin() as session:
        keys.add_key(
            session,
            name="k",
            secret_sha256=auth.digest(secret),
            scopes=["flags:read"],
            expires_at=soon,
        )

    told = client.post("/auth/key", headers={"X-API-Key": secret}).json()
    clock.later(minutes=6)

    assert dt.datetime.fromisoformat(told["expires_at"]) == soon
    assert client.get("/v1/flags").json()["code"] == "expired_session"


def test_the_token_is_new_with_each_sign_in_and_the_session_before_is_over(
    client: TestClient, headers_for: Callable[..., Headers], sessions: Sessions
) -> None:
    headers = headers_for("flags:read")
    # Somebody planted a token of his choice: it never becomes a session.
    client.cookies.set(COOKIE, "chosen-by-somebody-else", domain="audit.example")
    assert client.get("/v1/flags").json()["code"] == "unknown_session"
    client.cookies.clear()
    client.post("/auth/key", headers=headers)
    first = client.cookies[COOKIE]
    client.post("/auth/key", headers=headers)
    second = client.cookies[COOKIE]

    assert len({first, second, "chosen-by-somebody-else"}) == 3
    assert client.get("/v1/flags").status_code == 200
    client.cookies.clear()
    again = client.get("/v1/flags", headers={"Cookie": f"{COOKIE}={first}"})
    assert (again.status_code, again.json()["code"]) == (401, "revoked_session")
    with sessions() as session:
        ended = session.scalars(select(LoginSession.ended).order_by(LoginSession.created_at)).all()
    assert ended == ["replaced", None]


def test_signing_out_ends_the_session_and_drops_its_cookie(
    signed_in: TestClient, sessions: Sessions
) -> None:
    token = signed_in.cookies[COOKIE]

    answer = signed_in.post("/auth/logout", headers=OWN)

    assert answer.json() == {"issuer_logout_url": None}
    assert COOKIE not in signed_in.cookies
    assert signed_in.get("/auth/session").json()["code"] == "missing_key"
    stolen = signed_in.get("/v1/flags", headers={"Cookie": f"{COOKIE}={token}"})
    counted = 'subtext_api_authentication_failures_total{code="revoked_session"} 1.0'
    assert counted in signed_in.get("/metrics").text
    assert (stolen.status_code, stolen.json()["code"]) == (401, "revoked_session")
    [signed_out] = [entry for entry in added(sessions) if entry.action == "sign_out"]
    assert (signed_out.operation, signed_out.key_name) == ("sign_out", "test")


def test_an_operator_lists_and_revokes_sessions(
    signed_in: TestClient,
    sessions: Sessions,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", database_url)
    assert commands.session(["list"]) == 0
    listed = capsys.readouterr().out
    [identity] = [line.split()[0] for line in listed.splitlines()]
    assert (" valid " in listed, "flags:read" in listed, "'test'" in listed) == (True, True, True)

    assert commands.session(["revoke", identity]) == 0
    assert commands.session(["revoke", identity]) == 1

    answer = signed_in.get("/v1/flags")
    assert (answer.status_code, answer.json()["code"]) == (401, "revoked_session")
    revoked, denied = added(sessions)[-2:]
    assert (revoked.action, revoked.operation) == ("session_change", "session revoke")
    assert (revoked.subject_ids, denied.result) == ([uuid.UUID(identity)], "revoked_session")
    capsys.readouterr()
    assert commands.session(["list"]) == 0
    assert capsys.readouterr().out == ""
    assert commands.session(["list", "--all"]) == 0
    assert " revoked " in capsys.readouterr().out


def test_a_key_goes_before_a_cookie_and_neither_stands_in_for_the_other(
    signed_in: TestClient, headers_for: Callable[..., Headers]
) -> None:
    token = signed_in.cookies[COOKIE]
    other = headers_for("coverage:read")

    assert signed_in.get("/v1/flags", headers=other).status_code == 403
    assert signed_in.get("/v1/flags", headers={"X-API-Key": "wrong"}).json()["code"] == "unknown_key"
    as_key = {"X-API-Key": token, "Cookie": ""}
    assert signed_in.get("/v1/flags", headers=as_key).json()["code"] == "unknown_key"
    # A session begets no session, which would outlive it.
    again = signed_in.post("/auth/key", headers=OWN)
    assert (again.status_code, again.json()["code"]) == (403, "not_a_key")
    refused = signed_in.post("/auth/logout", headers=other)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_a_session")
    long = signed_in.get("/v1/flags", headers={"Cookie": f"{COOKIE}={'x' * 300}"})
    assert long.status_code == 401


def test_over_plain_http_a_session_stays_on_this_machine(
    reader: Engine, clock: Clock, headers_for: Callable[..., Headers]
) -> None:
    app = built(reader, SignInPlan(cookies=Cookies(is_plain=True)), clock)
    headers = headers_for("flags:read")
    with TestClient(app, base_url="http://127.0.0.1:8080") as near:
        answer = near.post("/auth/key", headers=headers)
        token = near.cookies["subtext-plain"]
        assert near.get("/v1/flags").status_code == 200
        written = answer.headers["set-cookie"]
        assert ("secure" in written.lower(), "httponly" in written.lower()) == (False, True)
    with TestClient(app, base_url="http://audit.example") as far:
        refused = far.post("/auth/key", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "plain_http")
        far.cookies.set("subtext-plain", token, domain="audit.example")
        assert far.get("/v1/flags").json()["code"] == "missing_key"
