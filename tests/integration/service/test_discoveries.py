"""Discoveries are listed with their window, and shown on their request and their incident."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
LATER = seed.START + dt.timedelta(hours=2)


@pytest.fixture
def reads_flags(headers_for: Callable[..., Headers]) -> Headers:
    return headers_for("flags:read")


def listed(client: TestClient, headers: Headers, **parameters: str) -> list[dict[str, Any]]:
    answer = client.get("/v1/discoveries", headers=headers, params=parameters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_discovery_tells_its_denominator_its_rate_and_its_reference(
    client: TestClient, sessions: Sessions, reads_flags: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_window(session, seed.add_model(session), ["strange"], ["usual", "plain"])

    [found] = listed(client, reads_flags)

    assert (found["request_id"], found["is_discovery"], found["hypothesis"]) == ("strange", True, True)
    assert (found["p_value"], found["rank"], found["calibration_n"]) == (0.0004, 1, 4851)
    assert found["q_value"] == pytest.approx(0.0012)
    window = found["window"]
    assert (window["requests"], window["discoveries"], window["fdr"]) == (3, 1, 0.1)
    assert found["reference_digest"] == "ab" * 32
    assert found["positions"] == [{"position": place, "p_value": 0.004} for place in (3, 4)]
    assert "Anomalous under reference abababababab" in found["label"]
    assert "0.1 over the 3 requests of its window" in found["label"]
    assert "does not say that it is harmful" in found["label"]


def test_each_filter_keeps_what_it_names(
    client: TestClient, sessions: Sessions, reads_flags: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_window(session, seed.add_model(session, "first"), ["a"], ["c"])
        seed.add_window(session, seed.add_model(session, "second"), ["b"], captured_at=LATER)

    for parameters, requests in (
        ({"model": "first"}, ["a"]),
        ({"model": "nobody"}, []),
        ({"request": "b"}, ["b"]),
        ({"request": "c"}, []),  # tested, and no discovery
        ({"captured_after": LATER.isoformat()}, ["b"]),
        ({"captured_before": LATER.isoformat()}, ["a"]),
    ):
        found = listed(client, reads_flags, **parameters)
        assert [one["request_id"] for one in found] == requests, parameters


def test_pages_meet_every_discovery_once(
    client: TestClient, sessions: Sessions, reads_flags: Headers
) -> None:
    names = [f"r{number}" for number in range(5)]
    with sessions.begin() as session:
        seed.add_window(session, seed.add_model(session), names)
    found: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        parameters = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = client.get("/v1/discoveries", headers=reads_flags, params=parameters).json()
        found += [one["request_id"] for one in page["items"]]
        cursor = page["next_cursor"]

    assert cursor is None
    assert sorted(found) == names


def test_a_request_shows_its_test_whether_or_not_it_is_a_discovery(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for name in ("strange", "usual", "waits"):
            seed.add_explanation(session, audited, request_id=name)
        seed.add_window(session, audited, ["strange"], ["usual"])

    tests = {}
    for name in ("strange", "usual", "waits"):
        [capture] = client.get(f"/v1/requests/{name}", headers=admin).json()["captures"]
        tests[name] = capture["anomaly_tests"]

    assert tests["waits"] == []
    [strange], [usual] = tests["strange"], tests["usual"]
    assert (strange["is_discovery"], usual["is_discovery"]) == (True, False)
    assert (usual["incident_id"], usual["window"]["requests"]) == (None, 2)
    assert "Not found to be anomalous" in usual["label"]
    assert "does not say that it is harmless" in usual["label"]


def test_an_incident_shows_its_discovery_and_the_positions_that_it_was_tested_by(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position in range(6):
            seed.add_explanation(session, audited, position=position)
        seed.add_window(session, audited, ["chat-1"], positions=[2, 4])
    [found] = listed(client, admin)

    shown = client.get(f"/v1/incidents/{found['incident_id']}", headers=admin).json()

    assert shown["discovery"] == found
    assert (shown["severity"], shown["status"], shown["flags"]) == ("info", "lead", [])
    assert [one["explanation"]["position"] for one in shown["evidence"]] == [2, 4]
    assert shown["positions"]["evidence"] == 2
    [event] = shown["events"]
    assert [finding["kind"] for finding in event["findings"]] == ["anomaly"]


def test_a_discovery_whose_incident_could_not_be_written_names_none(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        session.execute(text("ALTER TABLE incident_events RENAME TO away"))
        seed.add_window(session, audited, ["strange"])
        session.execute(text("ALTER TABLE away RENAME TO incident_events"))

    [found] = listed(client, admin)
    [capture] = client.get("/v1/requests/strange", headers=admin).json()["captures"]

    assert (found["request_id"], found["incident_id"]) == ("strange", None)
    assert capture["anomaly_tests"] == [found]
    assert client.get("/v1/incidents", headers=admin).json()["items"] == []


def test_an_incident_of_flags_alone_has_no_discovery(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        incident = seed.add_incident(session, seed.add_flag(session, audited))
        seed.add_window(session, audited, [], ["chat-1"])

    assert client.get(f"/v1/incidents/{incident.id}", headers=admin).json()["discovery"] is None
