"""People in sessions do what keys do, by their own names, and nobody is two of himself."""

import re
import uuid
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from psycopg.errors import CheckViolation, UniqueViolation
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.sign_in.origin import SAFE_METHODS
from service.store.access.tables import AccessEntry, Action
from service.store.evidence.rows import list_rows
from service.store.exports.tables import Export
from service.store.retention.tables import LegalHoldLift
from service.store.tenants import scope
from tests.integration.service import seed
from tests.support.people import ISSUER, browser, sign_in

Headers = dict[str, str]
Sessions = sessionmaker[Session]
HOLD = {"scope": {"model": "tiny"}, "reason": "a case"}
PERIOD = {"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T06:00:00Z"}
LISTED = {"/v1/retention": "/v1/retention/versions"}
"""Where it is listed, if elsewhere: a period that waits is not in force yet."""
ASKED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/legal-holds", HOLD, "place_legal_hold"),
    ("/v1/retention", {"retention_class": "ai_act", "period_days": 200, "reason": "a"}, "set_retention"),
    ("/v1/exports", {"kinds": ["flags"], **PERIOD}, "create_export"),
    ("/v1/erasures", {"scope": "request", "identifier": "chat-1"}, "ask_for_erasure"),
]
PURPOSE = {"Subtext-Purpose": "audit"}


def signed_in(sessions: Sessions, person: str, **more: Any) -> Headers:
    with sessions.begin() as session:
        return sign_in(session, person, **more)


def lift(client: TestClient, hold: str, headers: Headers) -> tuple[int, str]:
    answer = client.post(f"/v1/legal-holds/{hold}/lift", json={"reason": "over"}, headers=headers)
    return answer.status_code, answer.json().get("state") or answer.json()["code"]


@pytest.fixture
def hold(client: TestClient, admin: Headers, sessions: Sessions) -> str:
    with sessions.begin() as session:
        seed.add_model(session)
    return str(client.post("/v1/legal-holds", json=HOLD, headers=admin).json()["id"])


def test_a_person_asks_for_what_a_key_asks_for_and_is_named(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        seed.add_model(session)
    person = signed_in(sessions, "anna") | PURPOSE

    for path, body, operation in ASKED:
        answer = client.post(path, json=body, headers=person)
        listed = client.get(LISTED.get(path, path), headers=person).json()["items"][0]

        assert answer.status_code in {200, 202}, answer.text
        for told in (answer.json(), listed):
            assert (told["issuer"], told["person"], told["key_id"]) == (ISSUER, "anna", None), operation
            assert told["session_id"] is not None
    with sessions() as session:
        entries = session.scalars(select(AccessEntry).order_by(AccessEntry.seq)).all()
        rows = [row for part in list_rows(session, scope.DEFAULT_ID) for row in part]
    assert [(one.operation, one.person, one.key_id) for one in entries] == [
        (operation, "anna", None) for _, _, operation in ASKED
    ]
    assert {"legal_hold", "retention_version", "access"} <= {row.kind for row in rows if row.commitments}


def test_two_sessions_of_a_person_are_one_and_another_person_lifts(
    client: TestClient, sessions: Sessions, hold: str
) -> None:
    first, again = signed_in(sessions, "anna"), signed_in(sessions, "anna")

    assert lift(client, hold, first) == (200, "lift_asked")
    assert lift(client, hold, again) == (409, "other_key_needed")
    # The `sub` of another issuer is somebody else.
    assert lift(client, hold, signed_in(sessions, "anna", issuer="https://other.example")) == (
        200,
        "lifted",
    )
    told = client.get("/v1/legal-holds", params={"with_lifted": "true"}, headers=first).json()["items"][0]
    assert [one["issuer"] for one in told["lifts"]] == [ISSUER, "https://other.example"]


def test_a_key_and_its_session_are_one_and_a_person_is_another(
    client: TestClient, sessions: Sessions, hold: str, headers_for: Callable[..., Headers]
) -> None:
    key = headers_for("holds:read", "holds:write")
    cookies = SimpleCookie(client.post("/auth/key", headers=key).headers["set-cookie"])
    client.cookies.clear()
    session_of_key = browser(cookies["__Host-subtext"].value)

    assert lift(client, hold, session_of_key) == (200, "lift_asked")
    assert lift(client, hold, key) == (409, "other_key_needed")
    assert lift(client, hold, signed_in(sessions, "anna")) == (200, "lifted")
    with sessions() as session:
        lifts = session.scalars(select(LegalHoldLift).order_by(LegalHoldLift.at)).all()
    assert [(one.key_id is None, one.session_id is None, one.person) for one in lifts] == [
        (False, False, None),
        (True, False, "anna"),
    ]


def test_the_database_itself_refuses_a_second_step_of_one_person_and_a_step_of_nobody(
    reader_url: str, database_url: str, sessions: Sessions, hold: str
) -> None:
    with sessions.begin() as session:
        key = seed.add_actor(session).key_id
    here, elsewhere = uuid.uuid4(), uuid.uuid4()

    def step(url: str, name: str, *who: object) -> None:
        before = "asked" if name == "confirmed" else None
        with psycopg.connect(url) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
            connection.execute(
                "INSERT INTO legal_hold_lifts (id, hold_id, step, step_before, reason,"
                " key_id, key_name, session_id, issuer, person)"
                " VALUES (gen_random_uuid(), %s, %s, %s, 'over', %s, %s, %s, %s, %s)",
                [hold, name, before, *who],
            )

    for nobody in (
        (None, None, here, None, None),
        (key, "k", here, ISSUER, "anna"),
        (key, None, None, None, None),
        (None, None, here, None, "anna"),
        (None, None, None, ISSUER, "anna"),
    ):
        with pytest.raises(CheckViolation, match="named"):
            step(reader_url, "asked", *nobody)
    step(reader_url, "asked", None, None, here, ISSUER, "anna")
    for url in (reader_url, database_url):
        with pytest.raises(UniqueViolation, match="person"):
            step(url, "confirmed", None, None, elsewhere, ISSUER, "anna")
    step(reader_url, "confirmed", key, "k", here, None, None)


def test_a_person_for_some_models_meets_his_own_exports_of_these_alone(
    client: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        for model in ("tiny", "other"):
            seed.add_model(session, model)
    of_all, of_tiny = signed_in(sessions, "boss"), signed_in(sessions, "anna", models=["tiny"])
    body = {"kinds": ["flags"], **PERIOD}
    whole = client.post("/v1/exports", json=body, headers=of_all).json()["id"]
    own = client.post("/v1/exports", json=body, headers=of_tiny).json()["id"]

    def met(headers: Headers) -> list[str]:
        found = [one["id"] for one in client.get("/v1/exports", headers=headers).json()["items"]]
        for export in (whole, own):
            for path in (f"/v1/exports/{export}", f"/v1/exports/{export}/download"):
                is_hidden = client.get(path, headers=headers).status_code == 404
                assert is_hidden == (export not in found), path
        return found

    assert met(of_all) == [own, whole]
    assert met(of_tiny) == met(signed_in(sessions, "anna", models=["other", "tiny"])) == [own]
    assert met(signed_in(sessions, "bert", models=["tiny"])) == []
    # His group reads other models now.
    assert met(signed_in(sessions, "anna", models=["other"])) == []


def test_a_bundle_that_somebody_lacks_the_scope_for_is_a_denial_in_the_log(
    client: TestClient, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        export = seed.add_export(session)
        session.get_one(Export, export.id).with_text = True
    person = signed_in(sessions, "anna", scopes=["exports:create", "flags:read"])
    body = {"kinds": ["access_log"], **PERIOD}

    refused = [client.get(f"/v1/exports/{export.id}/download", headers=person | PURPOSE) for _ in range(2)]
    asked = client.post("/v1/exports", json=body, headers=person)

    assert [answer.status_code for answer in (*refused, asked)] == [403] * 3
    assert asked.json()["detail"] == "this session lacks the scope audit:read"
    with sessions() as session:
        entries = session.scalars(select(AccessEntry).order_by(AccessEntry.seq)).all()
    # The second like the first is counted in the next one.
    assert [(one.action, one.operation, one.result, one.person) for one in entries] == [
        (Action.DENY, operation, "missing_scope", "anna")
        for operation in ("download_export", "create_export")
    ]


def test_no_operation_that_changes_something_takes_a_cookie_from_a_page_of_others(
    app: FastAPI, client: TestClient, sessions: Sessions
) -> None:
    cookie = {"Cookie": signed_in(sessions, "anna")["Cookie"]}
    unsafe = [
        (method, path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if method.upper() not in SAFE_METHODS
    ]
    assert {path for _, path in unsafe} >= {path for path, _, _ in ASKED} | {"/auth/key", "/auth/logout"}

    pages: list[Headers] = [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
    for method, path in unsafe:
        url = re.sub(r"{[^}]*}", str(uuid.UUID(int=0)), path)
        for page in pages:
            answer = client.request(method, url, json={}, headers=cookie | page)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin"), (url, page)
    assert client.get("/auth/session", headers=cookie).status_code == 200
