"""What is stored of a person is found by the subject key, whole, and by nobody else's."""

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.store.access.tables import AccessEntry
from service.store.evidence import proof
from service.store.evidence.tables import LogCheckpoint, LogLeaf
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
PATH = f"/v1/subjects/{seed.SUBJECT}"
OTHER = "b" * 32


@pytest.fixture
def stored(sessions: Sessions) -> dict[str, Any]:
    """Two requests of the person's with two samples each, one of another person, one of nobody."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        made = {
            (request, position): seed.add_explanation(
                session,
                audited,
                request_id=request,
                position=position,
                captured_at=seed.START + dt.timedelta(minutes=minutes + position),
                concept="deception" if request == "chat-1" else None,
                subject=subject,
            )
            for request, minutes, subject in (
                ("chat-1", 0, seed.SUBJECT),
                ("chat-2", 10, seed.SUBJECT),
                ("chat-3", 20, OTHER),
                ("chat-4", 30, None),
            )
            for position in range(2)
        }
        incident = seed.add_incident(session, seed.add_flag(session, audited, request_id="chat-1"))
        logged = made["chat-1", 0]
        logged.log_salt = bytes(16)
        session.flush()
        commitment = proof.explanation_commitment(session, logged.id)
        session.add_all(
            [
                LogLeaf(seq=7, kind="explanation", at=seed.START, commitment=commitment),
                LogCheckpoint(size=8, note="a note"),
            ]
        )
        ids = {f"{request}/{position}": str(one.id) for (request, position), one in made.items()}
        return ids | {"incident": str(incident.id)}


def test_everything_of_the_person_is_answered_with_its_place_in_the_log_and_who_read_it(
    client: TestClient, headers_for: Callable[..., Headers], stored: dict[str, Any]
) -> None:
    officer = headers_for("audit:read", "explanations:read", "explanations:read_text", "flags:read")
    reads = {"Subtext-Purpose": "subject_request; ticket 5"}
    shown = client.get(f"/v1/explanations/{stored['chat-2/1']}", headers=officer | reads)
    assert seed.SECRET_TEXT in shown.text

    answer = client.get(PATH, headers=officer | reads).json()
    again = client.get(PATH, headers=officer | reads).json()

    assert [one["request_id"] for one in answer["captures"]] == ["chat-2", "chat-1"]
    found = [one["id"] for capture in answer["captures"] for one in capture["explanations"]]
    assert found == [stored[name] for name in ("chat-2/0", "chat-2/1", "chat-1/0", "chat-1/1")]
    assert [len(one["samples"]) for one in answer["captures"]] == [2, 2]
    assert answer["captures"][0]["explanations"][0]["text"] == seed.SECRET_TEXT
    assert [[one["concept"] for one in capture["flags"]] for capture in answer["captures"]] == [
        [],
        ["deception"],
    ]
    assert [one["incident_ids"] for one in answer["captures"]] == [[], [stored["incident"]]]
    places = {one["explanation_id"]: one["seq"] for one in answer["evidence"]}
    assert places == dict.fromkeys(found) | {stored["chat-1/0"]: 7}
    assert f"/v1/log/proof?explanation_id={found[0]}" in [one["proof"] for one in answer["evidence"]]
    assert [one["operation"] for one in answer["reads"]] == ["get_explanation"]
    assert (answer["reads"][0]["purpose"], answer["reads"][0]["purpose_note"]) == (
        "subject_request",
        "ticket 5",
    )
    assert [one["operation"] for one in again["reads"]] == ["get_subject", "get_explanation"]
    assert (answer["first_captured_at"], answer["last_captured_at"]) == (
        "2026-11-23T05:00:00Z",
        "2026-11-23T05:11:00Z",
    )
    assert answer["next_cursor"] is None


def test_pages_hold_every_sample_once(client: TestClient, admin: Headers, stored: dict[str, Any]) -> None:
    met: list[list[str]] = []
    path = f"{PATH}?limit=3"
    while path:
        page = client.get(path, headers=admin)
        met.append([one["id"] for capture in page.json()["captures"] for one in capture["explanations"]])
        path = page.links["next"]["url"] if "next" in page.links else ""

    assert [len(page) for page in met] == [3, 1]
    assert sorted(one for page in met for one in page) == sorted(
        stored[name] for name in ("chat-1/0", "chat-1/1", "chat-2/0", "chat-2/1")
    )


@pytest.mark.usefixtures("stored")
def test_without_scope_or_purpose_nothing_of_the_text_is_shown(
    client: TestClient, headers_for: Callable[..., Headers], sessions: Sessions
) -> None:
    auditor = headers_for("audit:read", "explanations:read", "flags:read")

    answer = client.get(PATH, headers=auditor)
    nobody = client.get(f"/v1/subjects/{'c' * 32}", headers=auditor)
    wrong = client.get(f"/v1/subjects/{seed.SUBJECT.upper()}", headers=auditor)

    assert len(answer.json()["captures"]) == 2
    assert not [word for word in (seed.SECRET_TEXT, seed.SECRET_TOKEN) if word in answer.text]
    assert (nobody.status_code, nobody.json()["code"]) == (404, "unknown_subject")
    assert wrong.status_code == 422
    # That nothing is stored of somebody is told of him too, and entered.
    with sessions() as session:
        read = session.scalars(select(AccessEntry).order_by(AccessEntry.seq)).all()
    assert [(str(one.action), one.subjects_total > 0) for one in read] == [
        ("log_read", True),
        ("log_read", False),
    ]
    assert client.get("/v1/subjects/lookup", headers=auditor).status_code == 405


def test_a_person_is_looked_up_by_an_id_that_stands_in_no_answer_and_no_log(
    client: TestClient, app: FastAPI, admin: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    path, asked = "/v1/subjects/lookup", {"subject_id": seed.SECRET_PERSON}
    with caplog.at_level(logging.DEBUG):
        found = client.post(path, json=asked, headers=admin)
        elsewhere = client.post(path, json=asked | {"tenant": "acme"}, headers=admin)
        too_long = client.post(path, json={"subject_id": "é" * 200}, headers=admin)
        app.state.resources = type(app.state.resources)(
            engine=app.state.resources.engine,
            sessions=app.state.resources.sessions,
            metrics=app.state.resources.metrics,
        )
        without = client.post(path, json=asked, headers=admin)

    assert found.json() == {"subject": seed.SUBJECT, "url": PATH}
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (404, "unknown_tenant")
    assert (too_long.status_code, too_long.json()["errors"][0]["field"]) == (422, "subject_id")
    assert (without.status_code, without.json()["code"]) == (409, "no_subject_secret")
    answers = "".join(one.text for one in (found, elsewhere, without))
    assert seed.SECRET_PERSON not in answers + caplog.text
