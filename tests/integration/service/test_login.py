"""People sign in by a real issuer over HTTP, and whoever does not is told why and entered in the log."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.settings import ServiceSettings
from service.sign_in.issuer import Issuer
from service.store import identity
from service.store.access.tables import AccessEntry
from service.store.engine import session_factory
from service.store.people.tables import LoginSession
from service.store.tenants.tables import Tenant
from tests.integration.service import seed
from tests.support.issuer import CLIENT_ID, CLIENT_SECRET, TestIssuer, running_issuer

Headers = dict[str, str]
Sessions = sessionmaker[Session]
COOKIE, LOGIN_COOKIE = "__Host-subtext", "__Host-subtext-login"
OWN = {"Sec-Fetch-Site": "same-origin"}
GRANTS = [
    {"group": "reviewers", "roles": ["reviewer", "auditor"]},
    {"group": "chat", "roles": ["text-reader"], "models": ["chat"]},
    {"group": "acme", "roles": ["reader"], "tenant": "acme"},
    {"group": "gone", "roles": ["reader"], "tenant": "gone"},
]


@pytest.fixture(scope="module")
def served() -> Iterator[TestIssuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(served: TestIssuer) -> TestIssuer:
    served.reset()
    return served


@pytest.fixture
def client(reader: Engine, issuer: TestIssuer, tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "secret").write_text(CLIENT_SECRET)
    (tmp_path / "grants.json").write_text(json.dumps(GRANTS))
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://nobody@localhost/none"),
        oidc_issuer=issuer.url,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret_file=tmp_path / "secret",
        oidc_redirect_base_url="https://audit.example",
        oidc_grants_file=tmp_path / "grants.json",
        oidc_timeout_seconds=30,
    )
    app = create_app(
        Resources(
            engine=reader,
            sessions=session_factory(reader),
            metrics=Metrics(CollectorRegistry()),
            plan=settings.plan,
        )
    )
    with TestClient(
        app, base_url="https://audit.example", raise_server_exceptions=False, follow_redirects=False
    ) as made:
        yield made


def began(client: TestClient, path: str = "/console") -> str:
    """Begin a login and let the issuer sign in; return where the browser is sent back to."""
    answer = client.get("/auth/login", params={"next": path})
    assert answer.status_code == 302, answer.text
    with httpx2.Client(timeout=30, trust_env=False) as browser:
        back = browser.get(answer.headers["location"])
    assert back.status_code == 302
    parts = urlsplit(back.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://audit.example/auth/callback"
    return f"{parts.path}?{parts.query}"


def added(sessions: Sessions) -> list[AccessEntry]:
    with sessions() as session:
        return list(session.scalars(select(AccessEntry).order_by(AccessEntry.seq)))


def test_a_person_signs_in_reads_judges_and_signs_out(
    client: TestClient, issuer: TestIssuer, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        explanation = seed.add_explanation(session, audited, claims=seed.CLAIMS)
        incident = seed.add_incident(session, seed.add_flag(session, audited))
    issuer.person["groups"] = ["other", "reviewers"]

    back = began(client, "/console?from=alert")
    answer = client.get(back)

    assert (answer.status_code, answer.headers["location"]) == (303, "/console?from=alert")
    assert answer.headers["cache-control"] == "no-store"
    assert LOGIN_COOKIE not in client.cookies
    told = client.get("/auth/session").json()
    assert (told["person"], told["issuer"]) == ("248289761001", issuer.url)
    assert (told["name"], told["roles"], told["key_id"]) == ("Anna", ["reviewer", "auditor"], None)
    assert set(told["scopes"]) >= {"incidents:triage", "explanations:read_text", "audit:read"}
    assert "admin" not in told["scopes"]

    path = f"/v1/explanations/{explanation.id}"
    assert client.get(path).json()["text"] is None
    assert client.get(path, headers={"Subtext-Purpose": "audit"}).json()["text"] == seed.SECRET_TEXT
    change = {"version": 1, "to": "acknowledged", "reason_code": "under_review"}
    path = f"/v1/incidents/{incident.id}"
    assert client.post(f"{path}/transitions", json=change, headers=OWN).status_code == 200
    event = client.get(path).json()["events"][-1]
    assert (event["key_id"], event["person"], event["issuer"]) == (None, "248289761001", issuer.url)

    entries = added(sessions)
    assert [entry.action for entry in entries] == ["sign_in", "read_text", "write"]
    for entry in entries:
        assert (entry.key_id, entry.key_name) == (None, None)
        assert (entry.person, entry.issuer) == ("248289761001", issuer.url)
        assert str(entry.session_id) == told["session_id"]
        assert "Anna" not in str([getattr(entry, column.key) for column in entry.__table__.columns])
    mine = client.get("/v1/access-log", params={"person": "248289761001"}).json()["items"]
    assert [item["action"] for item in mine] == ["write", "read_text", "sign_in"]
    [right] = client.get("/v1/access-rights").json()["items"]
    assert (right["person"], right["name"], right["session_id"]) == (
        "248289761001",
        "Anna",
        told["session_id"],
    )
    assert (right["roles"], right["role"], right["state"]) == (["reviewer", "auditor"], None, "valid")
    assert (right["text_reads"], right["texts_read"], right["writes"]) == (1, 1, 1)

    out = client.post("/auth/logout", headers=OWN).json()["issuer_logout_url"]
    assert out.startswith(f"{issuer.url}/logout?client_id=subtext+%26+console&post_logout_redirect_uri=")
    assert client.get("/v1/flags").status_code == 401


def test_a_group_reads_of_its_models_and_its_tenant_alone(
    client: TestClient, issuer: TestIssuer, sessions: Sessions
) -> None:
    acme = identity.tenant_id("acme")
    with sessions.begin() as session:
        session.add(Tenant(id=acme, name="acme"))
        for name in ("chat", "tiny"):
            seed.add_flag(session, seed.add_model(session, name))

    issuer.person["groups"] = ["acme", "chat"]  # the file's order counts, not the token's
    assert client.get(began(client)).status_code == 303
    first = client.cookies[COOKIE]
    assert client.get("/auth/session").json()["models"] == ["chat"]
    assert {one["model"] for one in client.get("/v1/flags").json()["items"]} == {"chat"}
    assert client.get("/v1/access-log").status_code == 403

    issuer.person |= {"sub": "other", "groups": "acme"}
    assert client.get(began(client)).status_code == 303
    told = client.get("/auth/session").json()
    assert (told["tenant_id"], told["person"], told["models"]) == (str(acme), "other", None)
    assert client.get("/v1/flags").json()["items"] == []
    assert client.get("/v1/models").json()["items"] == []
    # Another one's session in the same browser is over.
    client.cookies.clear()
    before = client.get("/v1/flags", headers={"Cookie": f"{COOKIE}={first}"})
    assert before.json()["code"] == "revoked_session"


def test_who_cannot_be_signed_in_is_told_why_and_entered(
    client: TestClient, issuer: TestIssuer, sessions: Sessions
) -> None:
    issuer.person["groups"] = ["reviewers"]

    def refused(back: str) -> str:
        answer = client.get(back)
        assert answer.status_code in {400, 403}, answer.text
        assert COOKIE not in client.cookies
        code: str = answer.json()["code"]
        return code

    assert refused("/auth/callback?code=x&state=y") == "no_login"
    first = began(client)
    began(client)
    assert refused(first) == "wrong_state"  # it answers the login before
    back = began(client)
    assert refused(back.replace("iss=http", "iss=https")) == "wrong_issuer"
    assert refused(back.split("&iss=", maxsplit=1)[0]) == "wrong_issuer"  # it says that it names itself
    state = back.partition("state=")[2]
    assert refused(f"/auth/callback?error=access_denied&state={state}") == "issuer_refused"
    assert refused(f"/auth/callback?state={state}") == "no_code"
    assert refused(f"/auth/callback?code=made-up&state={state}") == "code_refused"
    assert client.get(f"{back}&code=second").status_code == 422

    for wrong in ({"nonce": "other"}, {"iss": "https://evil.example"}, {"aud": "other"}, {"exp": 1}):
        issuer.alter = lambda claims, wrong=wrong: claims | wrong  # type: ignore[misc]
        assert refused(began(client)) == "bad_token", wrong
    issuer.reset()
    issuer.key = ECKey.generate_key("P-256", {"kid": "one"})
    assert refused(began(client)) == "bad_token"
    issuer.reset()
    assert refused(began(client)) == "no_grant"
    issuer.person["groups"] = ["gone"]
    assert refused(began(client)) == "unknown_tenant"

    with sessions() as session:
        assert session.scalars(select(LoginSession)).all() == []
    failed = added(sessions)
    assert {(entry.action, entry.operation, entry.result) for entry in failed} == {
        ("sign_in", "finish_sign_in", "failed")
    }
    told = {entry.details["reason"]: entry.person for entry in failed}
    assert told == {
        **dict.fromkeys(("no_login", "wrong_state", "wrong_issuer", "issuer_refused", "no_code")),
        **dict.fromkeys(("code_refused", "bad_token")),
        "no_grant": "248289761001",
        "unknown_tenant": "248289761001",
    }
    assert len(failed) == len(told)  # one a minute of each
    assert 'failures_total{code="failed_sign_in"} 14.0' in client.get("/metrics").text


def test_a_login_makes_one_session_though_the_issuer_takes_its_code_again(
    client: TestClient, issuer: TestIssuer
) -> None:
    issuer.person["groups"] = ["reviewers"]
    issuer.takes_codes_again = True
    back = began(client)
    login = client.cookies[LOGIN_COOKIE]
    assert client.get(back).status_code == 303
    session = client.cookies[COOKIE]

    stolen = {"Cookie": f"{LOGIN_COOKIE}={login}"}
    client.cookies.clear()
    again = client.get(back, headers=stolen)
    issuer.takes_codes_again = False
    issuer.codes.clear()
    replayed = client.get(back, headers=stolen)

    assert (again.status_code, again.json()["code"]) == (400, "used_login")
    assert (replayed.status_code, replayed.json()["code"]) == (400, "code_refused")
    assert client.get("/v1/flags", headers={"Cookie": f"{COOKIE}={session}"}).status_code == 200


def test_while_the_issuer_is_away_keys_and_sessions_work_on(
    client: TestClient, issuer: TestIssuer, headers_for: Callable[..., Headers]
) -> None:
    issuer.is_away = True
    headers = headers_for("flags:read")

    answer = client.get("/auth/login")

    assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
    assert answer.headers["retry-after"] == "10"
    assert client.get("/v1/flags", headers=headers).status_code == 200
    assert client.post("/auth/key", headers=headers).status_code == 200
    assert client.get("/v1/flags").status_code == 200


def test_a_login_leads_to_no_other_place(client: TestClient) -> None:
    answer = client.get("/auth/login", params={"next": "//evil.example"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "no_path"


def test_keys_that_the_issuer_changed_are_asked_for_again(client: TestClient, issuer: TestIssuer) -> None:
    now, held = [0.0], client.app.state.resources  # type: ignore[attr-defined]
    issuer.person["groups"] = ["reviewers"]
    object.__setattr__(held, "issuer", Issuer(held.plan.people.client, clock=lambda: now[0]))
    assert client.get(began(client)).status_code == 303
    issuer.key = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})
    issuer.shown = [issuer.key]

    client.cookies.clear()
    assert client.get(began(client)).json()["code"] == "bad_token"  # not with each token that names one
    now[0] += 31
    assert client.get(began(client)).status_code == 303
