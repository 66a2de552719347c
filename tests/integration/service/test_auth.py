import datetime as dt
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.metrics import KEY_FAILURES, Metrics
from service.store import keys
from service.watch.key_watch import KeyWatch
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
NOW = dt.datetime.now(dt.UTC)

OPERATIONS = {
    "/v1/explanations": ["explanations:read"],
    "/v1/explanations/0dc7e3b4-e191-43cc-b073-52fddcb77c21": ["explanations:read"],
    "/v1/requests?trace_id=0af7651916cd43dd8448eb211c80319c": ["explanations:read", "flags:read"],
    "/v1/requests/chat-1": ["explanations:read", "flags:read"],
    "/v1/traces/0af7651916cd43dd8448eb211c80319c": ["explanations:read", "flags:read"],
    "/v1/captures/00000000-0000-0000-0000-000000000000/positions?model=tiny": [
        "explanations:read",
        "flags:read",
    ],
    "/v1/flags": ["flags:read"],
    "/v1/discoveries": ["flags:read"],
    "/v1/incidents": ["flags:read"],
    "/v1/incidents/0dc7e3b4-e191-43cc-b073-52fddcb77c21": ["explanations:read", "flags:read"],
    "/v1/incident-events": ["flags:read"],
    "/v1/triage?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z": ["flags:read"],
    "/v1/reporting-clocks": ["flags:read"],
    "/v1/precision": ["flags:read"],
    "/v1/detectors?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z": ["flags:read"],
    "/v1/coverage": ["coverage:read"],
    "/v1/coverage/statement?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z": ["coverage:read"],
    "/v1/live": ["coverage:read"],
    "/v1/concepts": ["flags:read"],
    "/v1/keys": ["keys:read"],
    "/v1/configuration": ["coverage:read"],
    "/v1/configuration/changes": ["coverage:read"],
    "/v1/configuration/comparison?model=tiny&at=2026-11-23T05:00:00Z": ["coverage:read", "flags:read"],
    "/v1/configuration/versions/9d1c6a0f4b7e2d35889a1b0c6f3e5d7294ab60c1e8f7d2b3a4958671c0d9e8f7": [
        "coverage:read"
    ],
    "/v1/prevalence?model=tiny&concept=violence&from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z": [
        "flags:read"
    ],
    "/v1/concepts/prevalence?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z": ["flags:read"],
    "/v1/erasures": ["erasures:read"],
    "/v1/erasures/0dc7e3b4-e191-43cc-b073-52fddcb77c21": ["erasures:read"],
    "/v1/models": ["explanations:read"],
    "/v1/decoders": ["explanations:read"],
    "/v1/access-log": ["audit:read"],
    "/v1/access-rights": ["audit:read"],
    "/v1/retention": ["coverage:read"],
    "/v1/retention/certificates": ["coverage:read"],
    "/v1/retention/certificates/0dc7e3b4-e191-43cc-b073-52fddcb77c21": ["coverage:read"],
    "/v1/retention/versions": ["coverage:read"],
    "/v1/legal-holds": ["holds:read"],
    "/v1/exports": ["exports:create"],
    "/v1/exports/0dc7e3b4-e191-43cc-b073-52fddcb77c21": ["exports:create"],
    "/v1/exports/0dc7e3b4-e191-43cc-b073-52fddcb77c21/download": ["exports:create"],
    f"/v1/subjects/{seed.SUBJECT}": ["explanations:read", "flags:read", "audit:read"],
    "/v1/log/checkpoint": ["audit:read"],
    "/v1/log/proof?explanation_id=0dc7e3b4-e191-43cc-b073-52fddcb77c21": ["audit:read"],
}


@pytest.mark.parametrize("path", OPERATIONS)
def test_without_a_key_every_operation_answers_401_with_a_challenge(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "missing_key"


@pytest.mark.parametrize("path", OPERATIONS)
def test_a_key_without_the_scope_answers_403_that_names_it(
    client: TestClient, headers_for: Callable[..., Headers], path: str
) -> None:
    needed = OPERATIONS[path]
    others = {str(scope) for scope in auth.Scope} - {"admin"} - {needed[-1]}

    answer = client.get(path, headers=headers_for(*others))

    assert answer.status_code == 403
    assert answer.json()["code"] == "missing_scope"
    assert answer.json()["detail"].endswith(needed[-1])


@pytest.mark.parametrize("path", OPERATIONS)
def test_a_key_with_exactly_the_scopes_is_let_in(
    client: TestClient, headers_for: Callable[..., Headers], path: str
) -> None:
    assert client.get(path, headers=headers_for(*OPERATIONS[path])).status_code in {200, 404}


def _add(sessions: Sessions, *, expires_at: dt.datetime | None = None, revoked: bool = False) -> str:
    secret = auth.new_secret()
    with sessions.begin() as session:
        key = keys.add_key(
            session, name="k", secret_sha256=auth.digest(secret), scopes=["admin"], expires_at=expires_at
        )
        if revoked:
            assert keys.revoke_key(session, key.id, NOW)
            assert not keys.revoke_key(session, key.id, NOW)
    return secret


def test_unknown_expired_and_revoked_keys_each_say_so(client: TestClient, sessions: Sessions) -> None:
    secrets = {
        "unknown_key": auth.new_secret(),
        "expired_key": _add(sessions, expires_at=NOW - dt.timedelta(seconds=1)),
        "revoked_key": _add(sessions, revoked=True),
    }

    for code, secret in secrets.items():
        answer = client.get("/v1/models", headers={"X-API-Key": secret})
        assert answer.status_code == 401
        assert answer.json()["code"] == code
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_every_refusal_is_counted_by_its_code(
    client: TestClient, sessions: Sessions, headers_for: Callable[..., Headers]
) -> None:
    client.get("/v1/flags")
    client.get("/v1/flags", headers={"X-API-Key": auth.new_secret()})
    client.get("/v1/flags", headers={"X-API-Key": _add(sessions, revoked=True)})
    client.get("/v1/flags", headers={"X-API-Key": _add(sessions, expires_at=NOW)})
    client.get("/v1/flags", headers=headers_for("coverage:read"))
    client.get("/v1/flags", headers=headers_for("flags:read"))

    shown = client.get("/metrics").text

    for code in KEY_FAILURES:
        assert f'subtext_api_authentication_failures_total{{code="{code}"}} 1.0' in shown


def test_keys_in_use_that_expire_soon_are_counted_and_no_others(sessions: Sessions) -> None:
    hour, days = dt.timedelta(hours=1), dt.timedelta(days=1)
    for expires_at, used_at in (
        (NOW + 13 * days, NOW - hour),  # the one
        (NOW + 15 * days, NOW - hour),
        (NOW + 13 * days, NOW - 2 * days),
        (NOW + 13 * days, None),
        (NOW - hour, NOW - hour),
        (None, NOW - hour),
    ):
        secret = _add(sessions, expires_at=expires_at)
        with sessions.begin() as session:
            key = keys.get_key(session, auth.digest(secret))
            assert key is not None
            key.last_used_at = used_at
    metrics = Metrics(CollectorRegistry())

    KeyWatch(sessions, metrics).count(NOW)

    assert "subtext_api_keys_expiring 1.0" in metrics.render().decode()


def test_both_headers_carry_a_key_and_another_scheme_does_not(
    client: TestClient, sessions: Sessions
) -> None:
    secret = _add(sessions, expires_at=NOW + dt.timedelta(days=1))

    assert client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": f"Basic {secret}"}).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer " + "x" * 5000}).status_code == 401
    assert client.get("/v1/models", headers={b"X-API-Key": b"\xff\xfe"}).status_code == 401


def test_the_last_use_is_recorded_at_most_once_a_minute(client: TestClient, sessions: Sessions) -> None:
    secret = _add(sessions)

    def last_used() -> dt.datetime | None:
        with sessions() as session:
            key = keys.get_key(session, auth.digest(secret))
            assert key is not None
            return key.last_used_at

    assert last_used() is None
    client.get("/v1/models", headers={"X-API-Key": secret})
    first = last_used()
    client.get("/v1/models", headers={"X-API-Key": secret})

    assert first is not None
    assert last_used() == first


def test_text_and_tokens_are_withheld_everywhere_without_their_scope(
    client: TestClient, sessions: Sessions, headers_for: Callable[..., Headers]
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        stored = seed.add_explanation(session, audited, concept="deception", claims=seed.CLAIMS)
        seed.add_flag(session, audited)
        seed.add_coverage(
            session, hop="plugin", minute=NOW.replace(second=0, microsecond=0), rows_sampled=1
        )
    without = headers_for("explanations:read", "flags:read", "coverage:read")
    with_text = headers_for("explanations:read", "explanations:read_text", "flags:read", "coverage:read")
    secrets = (seed.SECRET_TEXT, seed.SECRET_TOKEN, str(seed.SECRET_TOKEN_ID), seed.SECRET_AREA)
    paths = [*OPERATIONS, f"/v1/explanations/{stored.id}"]

    answers = {path: client.get(path, headers=without).text for path in paths}

    assert [path for path, text in answers.items() if any(secret in text for secret in secrets)] == []
    shown = [
        path
        for path in paths
        if all(secret in client.get(path, headers=with_text).text for secret in secrets)
    ]
    assert shown == ["/v1/explanations", "/v1/requests/chat-1", f"/v1/explanations/{stored.id}"]
    item = client.get(f"/v1/explanations/{stored.id}", headers=without).json()
    assert (item["text"], item["token_text"], item["token_id"], item["text_withheld"]) == (
        None,
        None,
        None,
        True,
    )


def test_every_operation_under_v1_is_in_the_lists_above(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described = {path for path, methods in paths.items() if path.startswith("/v1/") and "get" in methods}

    assert len(described) == len(OPERATIONS)
