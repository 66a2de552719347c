import datetime as dt
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from service.incidents.lifecycle import TRANSITIONS
from service.store.tables import Incident, IncidentEvent, WebhookMessage
from tests.integration.service import seed

Headers = dict[str, str]
_FLAGS_MORE = """
    INSERT INTO flags (id, model_id, decoder_id, capture_id, request_id, layer, concept, concepts_digest,
        severity, positions_matched, positions_required, positions_verified, first_captured_at,
        last_captured_at)
    SELECT gen_random_uuid(), model_id, decoder_id, gen_random_uuid(), 'of no incident ' || number, layer,
        concept, concepts_digest, severity, 3, 2, 14, first_captured_at, last_captured_at
    FROM (SELECT * FROM flags WHERE concept = :of LIMIT 1) AS one, generate_series(1, :flags) AS number
"""
Sessions = sessionmaker[Session]
Change = Callable[..., Response]


@pytest.fixture
def opened(sessions: Sessions) -> Incident:
    """One incident with two flags, five read positions, and another capture beside it."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        flags = [seed.add_flag(session, audited, concept=name) for name in ("deception", "harm")]
        for position, (concept, verified, p_value) in enumerate(
            [("deception", True, 0.5), ("harm", False, 0.5), (None, True, 0.004), (None, True, 0.5)]
        ):
            seed.add_explanation(
                session,
                audited,
                position=position,
                concept=concept,
                verified=verified,
                anomaly_p_value=p_value,
                claims=seed.CLAIMS,
            )
        seed.add_explanation(session, audited, position=4, anomaly_score=None)
        seed.add_explanation(session, audited, request_id="another", concept="harm")
        return seed.add_incident(session, *flags)


@pytest.fixture
def change(client: TestClient, headers_for: Callable[..., Headers]) -> Change:
    """Asks for a change with a key that may triage and nothing else."""
    headers = headers_for("flags:read", "incidents:triage")

    def ask(incident: Incident, **body: Any) -> Response:
        return client.post(f"/v1/incidents/{incident.id}/transitions", headers=headers, json=body)

    return ask


def test_an_incident_shows_its_evidence_its_figures_and_that_it_is_a_lead(
    client: TestClient, opened: Incident, admin: Headers
) -> None:
    shown = client.get(f"/v1/incidents/{opened.id}", headers=admin).json()

    assert (shown["status"], shown["hypothesis"], shown["state"], shown["version"]) == (
        "lead",
        True,
        "open",
        1,
    )
    assert [flag["concept"] for flag in shown["flags"]] == ["deception", "harm"]
    assert shown["positions"] == {"read": 5, "verified": 4, "evidence": 3, "anomalous": 1}
    found = [
        (item["concepts"], item["is_anomalous"], item["explanation"]["fidelity"]["verified"])
        for item in shown["evidence"]
    ]
    assert found == [(["deception"], False, True), (["harm"], False, False), ([], True, True)]
    first = shown["evidence"][0]["explanation"]
    assert (first["text"], first["fidelity"]["verified_above"], first["fidelity"]["candidates"]) == (
        seed.SECRET_TEXT,
        0.1,
        4,
    )
    assert (first["inclusion_probability"], first["anomaly"]["calibration_n"]) == (0.25, 512)
    [event] = shown["events"]
    assert (event["kind"], event["key_name"], event["from_state"]) == ("opened", None, None)
    assert [finding["positions_verified"] for finding in event["findings"]] == [14, 14]
    assert {told["to"] for told in shown["transitions"]} == {"acknowledged", "confirmed", "dismissed"}


def test_text_needs_its_own_scope_here_too(
    client: TestClient, opened: Incident, headers_for: Callable[..., Headers]
) -> None:
    headers = headers_for("explanations:read", "flags:read")

    shown = client.get(f"/v1/incidents/{opened.id}", headers=headers)

    assert shown.json()["evidence"][0]["explanation"]["text_withheld"] is True
    assert not [
        secret for secret in (seed.SECRET_TEXT, seed.SECRET_TOKEN, seed.SECRET_AREA) if secret in shown.text
    ]


def test_a_flag_with_a_rate_makes_the_incident_calibrated(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        incident = seed.add_incident(session, seed.add_flag(session, audited, false_positive_rate=0.01))

    assert client.get(f"/v1/incidents/{incident.id}", headers=admin).json()["status"] == "calibrated"


def test_events_are_narrowed_by_their_incidents_model_and_severity(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        first, second = seed.add_model(session, "first"), seed.add_model(session, "second")
        one = seed.add_incident(session, seed.add_flag(session, first, severity="critical"))
        seed.add_incident(session, seed.add_flag(session, first, request_id="b", severity="info"))
        seed.add_incident(session, seed.add_flag(session, second, request_id="c", severity="critical"))

    def found(**parameters: str) -> list[str]:
        answer = client.get("/v1/incident-events", params=parameters, headers=admin)
        assert answer.status_code == 200, answer.text
        return [item["incident_id"] for item in answer.json()["items"]]

    assert len(found()) == 3
    assert len(found(model="first")) == len(found(severity="critical")) == 2
    assert found(model="first", severity="critical") == [str(one.id)]


def test_a_concept_of_very_many_flags_finds_its_incidents_as_one_of_few_does(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        common = [
            seed.add_incident(session, seed.add_flag(session, audited, request_id=name, concept="common"))
            for name in ("a", "b")
        ]
        rare = seed.add_incident(session, seed.add_flag(session, audited, request_id="c", concept="rare"))
        more = text(_FLAGS_MORE)
        session.execute(more, {"of": "common", "flags": 600})

    def found(concept: str, **parameters: int) -> list[str]:
        answer = client.get("/v1/incidents", params={"concept": concept, **parameters}, headers=admin)
        return [item["id"] for item in answer.json()["items"]]

    assert set(found("common")) == {str(one.id) for one in common}
    assert len(found("common", limit=1)) == 1
    assert found("rare") == [str(rare.id)]
    assert found("none") == []


def test_each_filter_keeps_what_it_names(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    later = seed.START + dt.timedelta(hours=1)
    with sessions.begin() as session:
        first, second = seed.add_model(session, "first"), seed.add_model(session, "second")
        one = seed.add_incident(session, seed.add_flag(session, first, request_id="a", severity="critical"))
        two = seed.add_incident(
            session,
            seed.add_flag(
                session,
                second,
                request_id="b",
                capture_id=None,
                concept="harm",
                severity="info",
                captured_at=later,
            ),
        )
        two.state = "dismissed"

    def found(**parameters: str) -> set[str]:
        answer = client.get("/v1/incidents", params=parameters, headers=admin)
        assert answer.status_code == 200, answer.text
        assert all(item["flags"] for item in answer.json()["items"])
        return {item["id"] for item in answer.json()["items"]}

    assert found() == {str(one.id), str(two.id)}
    assert found(model="first") == found(severity="critical") == found(state="open") == {str(one.id)}
    assert found(request="b") == found(concept="harm") == found(state="dismissed") == {str(two.id)}
    assert found(captured_after=later.isoformat()) == {str(two.id)}
    assert found(captured_before=later.isoformat()) == {str(one.id)}


def test_pages_meet_every_incident_once(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        rows = [
            seed.add_incident(session, seed.add_flag(session, audited, request_id=f"r{n}"))
            for n in range(7)
        ]
    seen, url = [], "/v1/incidents?limit=3"
    while url:
        answer = client.get(url, headers=admin)
        seen += [item["id"] for item in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url", "")

    assert seen == [
        str(row.id) for row in sorted(rows, key=lambda row: (row.opened_at, row.id), reverse=True)
    ]


def test_a_verdict_is_stored_with_who_gave_it_and_told_to_the_outbox(
    client: TestClient, sessions: Sessions, opened: Incident, change: Change, admin: Headers
) -> None:
    answer = change(
        opened,
        version=1,
        to="confirmed",
        reason_code="seen_in_request",
        note=" asked\x00 for\x1b[31m it\n",
        confirmed_concepts=["harm"],
    )

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["state"], body["version"]) == ("confirmed", 2)
    assert body["labels"] == {"deception": False, "harm": True}
    event = client.get(f"/v1/incidents/{opened.id}", headers=admin).json()["events"][-1]
    assert (event["kind"], event["key_name"], event["reason_code"]) == (
        "triaged",
        "test",
        "seen_in_request",
    )
    assert (event["from_state"], event["to_state"], event["note"]) == (
        "open",
        "confirmed",
        "asked for[31m it",
    )
    with sessions() as session:
        assert len(session.scalars(select(WebhookMessage)).all()) == 2


def test_of_two_who_decide_at_once_one_is_told_what_the_other_did(
    opened: Incident, change: Change, sessions: Sessions
) -> None:
    answers: list[Response] = []

    def ask() -> None:
        answers.append(change(opened, version=1, to="dismissed", reason_code="not_in_request"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert (refused["code"], refused["state"], refused["version"]) == ("incident_changed", "dismissed", 2)
    with sessions() as session:
        assert session.scalars(select(IncidentEvent.version).order_by(IncidentEvent.version)).all() == [
            1,
            2,
        ]


def test_evidence_that_came_meanwhile_refuses_a_verdict_that_did_not_see_it(
    opened: Incident, change: Change, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        audited = seed.Audited(*_audited(session, opened))
        seed.add_incident(session, seed.add_flag(session, audited, concept="third", severity="critical"))

    answer = change(opened, version=1, to="dismissed", reason_code="not_in_request")

    assert (answer.status_code, answer.json()["version"]) == (409, 2)


def _audited(session: Session, incident: Incident) -> tuple[Any, Any]:
    from service.store.tables import Decoder, Model

    return session.get_one(Model, incident.model_id), session.get_one(Decoder, incident.decoder_id)


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({"to": "open", "reason_code": "released"}, "to", "after open may come"),
        ({"to": "acknowledged", "reason_code": "duplicate"}, "reason_code", "under_review"),
        ({"to": "confirmed", "reason_code": "seen_elsewhere"}, "confirmed_concepts", "deception, harm"),
        (
            {"to": "confirmed", "reason_code": "seen_elsewhere", "confirmed_concepts": ["x"]},
            "confirmed_concepts",
            "no flag for 'x'",
        ),
        (
            {"to": "dismissed", "reason_code": "duplicate", "confirmed_concepts": []},
            "confirmed_concepts",
            "leave it out",
        ),
        ({"to": "closed", "reason_code": "duplicate"}, "to", "'open'"),
        ({"to": "dismissed", "reason_code": "duplicate", "note": "x" * 2001}, "note", "2000"),
        ({"to": "dismissed", "reason_code": "duplicate", "by": "me"}, "by", "no such parameter"),
    ],
)
def test_what_cannot_be_done_names_the_field_and_the_fix(
    opened: Incident, change: Change, body: dict[str, Any], field: str, told: str
) -> None:
    answer = change(opened, version=1, **body)

    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["location"], error["field"]) == ("body", field)
    assert told in error["message"]


def test_a_dismissal_of_test_traffic_is_no_label_and_can_be_taken_back(
    opened: Incident, change: Change
) -> None:
    dismissed = change(opened, version=1, to="dismissed", reason_code="test_traffic").json()
    reopened = change(opened, version=2, to="open", reason_code="reconsidered").json()
    wrong = change(opened, version=3, to="dismissed", reason_code="reading_wrong").json()

    assert (dismissed["labels"], reopened["labels"], reopened["state"]) == ({}, {}, "open")
    assert wrong["labels"] == {"deception": False, "harm": False}


def test_an_incident_that_is_not_there_is_404(opened: Incident, change: Change) -> None:
    opened.id = uuid.uuid4()

    answer = change(opened, version=1, to="dismissed", reason_code="duplicate")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_incident")


def test_triage_needs_its_own_scope(
    client: TestClient, opened: Incident, headers_for: Callable[..., Headers]
) -> None:
    body = {"version": 1, "to": "dismissed", "reason_code": "duplicate"}
    path = f"/v1/incidents/{opened.id}/transitions"
    readers = headers_for("flags:read", "explanations:read", "explanations:read_text", "coverage:read")

    assert client.post(path, json=body).status_code == 401
    assert client.post(path, json=body, headers=readers).json()["detail"].endswith("incidents:triage")


def test_every_transition_that_the_contract_allows_is_taken(
    opened: Incident, change: Change, sessions: Sessions
) -> None:
    version = 1
    for state, targets in TRANSITIONS.items():
        for to, reasons in targets.items():
            for reason in reasons:
                with sessions.begin() as session:
                    session.get_one(Incident, opened.id).state = state
                held = {"confirmed_concepts": ["harm"]} if to == "confirmed" else {}
                answer = change(opened, version=version, to=to, reason_code=reason, **held)
                assert answer.status_code == 200, answer.text
                version += 1
