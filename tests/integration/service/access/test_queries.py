"""Two queries of compliance teams, on planted reads: who read which text, and who may read what."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service import auth
from service.store import keys
from service.store.access.tables import Action, Purpose, Result, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from tests.integration.service.access.stored import Stored

Headers = dict[str, str]
Sessions = sessionmaker[Session]
ANNA, BEN = uuid.uuid4(), uuid.uuid4()


@pytest.fixture
def auditor(headers_for: Callable[..., Headers]) -> Headers:
    return headers_for("audit:read")


def read_text(key: uuid.UUID, name: str, purpose: Purpose, subjects: Subjects) -> Entry:
    return Entry(
        action=Action.READ_TEXT,
        operation="get_request",
        key_id=key,
        key_name=name,
        subjects=subjects,
        purpose=purpose,
        purpose_note="ticket 17",
    )


@pytest.fixture
def planted(sessions: Sessions, stored: Stored) -> Stored:
    """Anna read the first explanation; Ben read so many of its capture that not all are named."""
    first, second, old = stored.explanations
    capture = stored.incident.capture_id
    assert capture is not None
    many = [second.id, *(uuid.uuid4() for _ in range(300))]

    def about(*ids: uuid.UUID, captures: list[uuid.UUID]) -> Subjects:
        return Subjects(kind=SubjectKind.EXPLANATION, ids=ids, captures=captures)

    with sessions.begin() as session:
        for entry in (
            read_text(ANNA, "anna", Purpose.AUDIT, about(first.id, captures=[capture])),
            read_text(ANNA, "anna", Purpose.DEBUGGING, about(old.id, captures=[uuid.uuid4()])),
            read_text(BEN, "ben", Purpose.INCIDENT_RESPONSE, about(*many, captures=[capture])),
        ):
            add_entry(session, entry)
    return stored


Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(client: TestClient, auditor: Headers) -> Ask:
    def call(**parameters: object) -> list[dict[str, Any]]:
        answer = client.get(
            "/v1/access-log",
            params={name: str(value) for name, value in parameters.items()},
            headers=auditor,
        )
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return [item for item in items if item["action"] != "log_read"]

    return call


def test_who_read_which_text_when_and_why(planted: Stored, ask: Ask) -> None:
    first, second, old = (explanation.id for explanation in planted.explanations)

    def readers(**parameters: object) -> list[str]:
        return [item["key_name"] for item in ask(**parameters)]

    assert readers(subject=first) == ["ben", "anna"]  # his entry names 200 of 301, of the same capture
    assert readers(subject=second) == ["ben"]
    assert readers(subject=old) == ["anna"]
    assert readers(subject=planted.incident.capture_id) == ["ben", "anna"]
    assert readers(subject=uuid.uuid4()) == []
    assert readers(key=ANNA) == ["anna", "anna"]
    assert readers(purpose="incident_response", action="read_text") == ["ben"]
    assert readers(action="write") == []

    [entry] = ask(key=ANNA, subject=first)
    assert (entry["purpose"], entry["purpose_note"], entry["operation"]) == (
        "audit",
        "ticket 17",
        "get_request",
    )
    assert (entry["subject_ids"], entry["subjects_total"], entry["result"]) == ([str(first)], 1, "done")
    [cut] = ask(key=BEN)
    assert (len(cut["subject_ids"]), cut["subjects_total"]) == (200, 301)
    assert readers(entered_before=entry["at"]) == []
    assert readers(entered_after=entry["at"]) == ["ben", "anna", "anna"]


def test_pages_meet_every_entry_once_and_reading_them_is_in_the_log(
    planted: Stored, client: TestClient, auditor: Headers
) -> None:
    assert planted
    met, path = [], "/v1/access-log?limit=2"
    while path:
        answer = client.get(path, headers=auditor | {"Subtext-Purpose": "compliance_review"})
        met += answer.json()["items"]
        path = answer.links["next"]["url"] if answer.json()["next_cursor"] else ""

    assert [item["key_name"] for item in met] == ["ben", "anna", "anna"]
    again = client.get("/v1/access-log", params={"action": "log_read"}, headers=auditor).json()["items"]
    assert [(item["operation"], item["purpose"], item["details"]) for item in again] == [
        ("list_access_log", "compliance_review", {"limit": 2})
    ] * 2


def test_the_review_of_access_rights_tells_what_each_key_may_do_and_did(
    client: TestClient, auditor: Headers, sessions: Sessions
) -> None:
    now = dt.datetime.now(dt.UTC)
    with sessions.begin() as session:
        made = {
            name: keys.add_key(
                session,
                name=name,
                secret_sha256=auth.digest(auth.new_secret()),
                scopes=scopes,
                expires_at=expires_at,
                role="text-reader" if name == "reader" else None,
                models=["chat"] if name == "reader" else None,
            ).id
            for name, scopes, expires_at in (
                ("reader", ["explanations:read", "explanations:read_text"], now + dt.timedelta(days=1)),
                ("gone", ["admin"], now - dt.timedelta(days=1)),
                ("stolen", ["flags:read"], None),
            )
        }
        keys.revoke_key(session, made["stolen"], now)
        subjects = Subjects(
            kind=SubjectKind.EXPLANATION, ids=[uuid.uuid4() for _ in range(250)], captures=[uuid.uuid4()]
        )
        for _ in range(2):
            add_entry(session, read_text(made["reader"], "reader", Purpose.AUDIT, subjects))
        for suppressed in (0, 41):
            add_entry(
                session,
                Entry(
                    action=Action.DENY,
                    operation="list_flags",
                    key_id=made["stolen"],
                    key_name="stolen",
                    result=Result.REVOKED_KEY,
                    suppressed=suppressed,
                ),
            )

    def rights(**parameters: str) -> dict[str, dict[str, Any]]:
        answer = client.get("/v1/access-rights", params=parameters, headers=auditor)
        assert answer.status_code == 200, answer.text
        assert "secret" not in answer.text
        return {item["name"]: item for item in answer.json()["items"]}

    tomorrow = (now + dt.timedelta(days=1)).isoformat()
    found = rights(to=tomorrow)

    def told(name: str, *fields: str) -> list[object]:
        return [found[name][field] for field in fields]

    counts = ("text_reads", "texts_read", "writes", "denials")
    assert told("reader", "state", "may_read_text", *counts) == ["valid", True, 2, 500, 0, 0]
    assert told("reader", "role", "models") == ["text-reader", ["chat"]]
    assert told("gone", "role", "models") == [None, None]
    assert told("gone", "state", "may_read_text", *counts) == ["expired", True, 0, 0, 0, 0]
    assert told("stolen", "state", "may_read_text", *counts) == [
        "revoked",
        False,
        0,
        0,
        0,
        43,
    ]  # two rows and 41 without one
    assert told("test", "state", "scopes") == ["valid", ["audit:read"]]
    assert found["test"]["last_used_at"] is not None
    before = rights(**{"from": (now - dt.timedelta(days=9)).isoformat(), "to": now.isoformat()})
    assert before["reader"]["text_reads"] == 0
    assert (
        client.get(f"/v1/access-rights?from={tomorrow.replace('+', '%2B')}", headers=auditor).json()[
            "errors"
        ][0]["code"]
        == "empty_range"
    )
