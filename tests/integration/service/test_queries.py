"""What compliance teams ask, one call each, with the right answer on planted data."""

import datetime as dt
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from service.store.canary import runs
from service.store.tables import Incident, IncidentEvent
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
HOUR = dt.timedelta(hours=1)
DAY = {"from": "2026-11-23T00:00:00Z", "to": "2026-11-24T00:00:00Z"}


def ask(client: TestClient, headers: Headers, path: str, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/{path}", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_flags_of_a_fidelity_stand_on_enough_positions_that_have_it(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        # By flag, the FVE of its matching positions; two are required.
        for request_id, fves in {"a": (0.9, 0.8, 0.1), "b": (0.9, 0.1, 0.1), "c": (0.5, 0.5, 0.5)}.items():
            seed.add_flag(session, audited, request_id=request_id)
            for position, fve in enumerate(fves):
                reading = seed.add_explanation(
                    session, audited, request_id=request_id, position=position, concept="deception"
                )
                reading.fve = fve
        # A position that is not verified, and one of another concept, count for nothing.
        unverified = seed.add_explanation(
            session, audited, request_id="b", position=8, concept="deception", verified=False
        )
        other = seed.add_explanation(session, audited, request_id="b", position=9, concept="weapons")
        unverified.fve = other.fve = 0.9

    def of(**least: float) -> set[str]:
        found = ask(client, admin, "flags", concept="deception", model="tiny", **least)
        return {item["request_id"] for item in found["items"]}

    assert of() == {"a", "b", "c"}
    assert of(min_fve=0.5) == {"a", "c"}
    assert of(min_fve=0.8) == {"a"}
    assert of(min_fve=0.81) == set()
    assert of(min_cosine=0.87) == {"a", "b", "c"}
    assert of(min_fve=0.5, min_cosine=0.88) == set()


def decide(
    session: Session, incident: Incident, *, after: dt.timedelta, to: str, reason: str, **labels: bool
) -> None:
    """Add what somebody decided, so long after the opening."""
    session.add(
        IncidentEvent(
            id=uuid.uuid4(),
            incident_id=incident.id,
            version=incident.version + 1,
            kind="triaged",
            at=incident.opened_at + after,
            key_name="reviewer",
            from_state=incident.state,
            to_state=to,
            severity=incident.severity,
            reason=reason,
            labels=labels,
        )
    )
    incident.state, incident.version, incident.labels = to, incident.version + 1, labels
    session.flush()


@pytest.fixture
def triaged(sessions: Sessions) -> dict[str, uuid.UUID]:
    """Five incidents of one day, by request: confirmed, overridden, acknowledged, dismissed, untouched."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        incidents = {}
        for request_id in ("confirmed", "overridden", "acknowledged", "dismissed", "untouched"):
            flag = seed.add_flag(
                session, audited, request_id=request_id, concept="harm", severity="critical"
            )
            incident = seed.add_incident(session, flag)
            incident.opened_at = seed.START
            session.execute(
                update(IncidentEvent).where(IncidentEvent.incident_id == incident.id).values(at=seed.START)
            )
            incidents[request_id] = incident
        seen, wrong = "seen_in_request", "reading_wrong"
        decide(session, incidents["confirmed"], after=HOUR, to="confirmed", reason=seen, harm=True)
        decide(session, incidents["overridden"], after=2 * HOUR, to="confirmed", reason=seen, harm=True)
        decide(session, incidents["overridden"], after=3 * HOUR, to="open", reason="reconsidered")
        decide(session, incidents["overridden"], after=4 * HOUR, to="dismissed", reason=wrong, harm=False)
        decide(session, incidents["acknowledged"], after=3 * HOUR, to="acknowledged", reason="under_review")
        decide(session, incidents["dismissed"], after=6 * HOUR, to="dismissed", reason=wrong, harm=False)
        return {request_id: incident.id for request_id, incident in incidents.items()}


@pytest.mark.usefixtures("triaged")
def test_triage_tells_times_to_review_decisions_and_overrides(client: TestClient, admin: Headers) -> None:
    found = ask(client, admin, "triage", **DAY)

    assert found["opened"] == 5
    # Reviewed after 1, 2, 3 and 6 hours; decided after 1, 2 and 6.
    review, decision = found["to_first_review"], found["to_decision"]
    assert (review["incidents"], review["median_seconds"], review["longest_seconds"]) == (4, 9000, 21_600)
    assert review["p90_seconds"] == pytest.approx(3600 * 5.1)
    assert (decision["incidents"], decision["median_seconds"]) == (3, 7200)
    assert (found["not_reviewed"]["numerator"], found["not_reviewed"]["denominator"]) == (1, 5)
    assert (found["not_decided"]["numerator"], found["not_decided"]["denominator"]) == (2, 5)
    assert [
        (one["to"], one["decisions"], one["overridden"]["numerator"]) for one in found["decisions"]
    ] == [
        ("confirmed", 2, 1),
        ("dismissed", 2, 0),
    ]
    assert found["overridden"] == {"numerator": 1, "denominator": 4, "value": 0.25}
    assert ask(client, admin, "triage", **DAY, model="another")["opened"] == 0


def test_a_label_of_another_concept_overrides_nothing_and_no_second_confirmation_moves_a_clock(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    seen, wrong = "seen_in_request", "reading_wrong"
    with sessions.begin() as session:
        audited = seed.add_model(session)
        flags = [seed.add_flag(session, audited, request_id=name, concept="harm") for name in ("a", "b")]
        grown, confirmed = (seed.add_incident(session, flag) for flag in flags)
        grown.opened_at = confirmed.opened_at = seed.START
        decide(session, grown, after=HOUR, to="dismissed", reason=wrong, harm=False)
        # By then it had a finding of another concept.
        decide(session, grown, after=2 * HOUR, to="dismissed", reason=wrong, harm=False, fraud=False)
        decide(session, confirmed, after=HOUR, to="confirmed", reason=seen, harm=True)
        decide(session, confirmed, after=2 * HOUR, to="open", reason="reconsidered")
        decide(session, confirmed, after=3 * HOUR, to="confirmed", reason=seen, harm=True)

    made = ask(client, admin, "triage", **DAY)["overridden"]
    [clocked] = ask(client, admin, "reporting-clocks", state="confirmed")["items"]

    assert made == {"numerator": 0, "denominator": 4, "value": 0.0}
    assert clocked["confirmed_at"] == "2026-11-23T06:00:00Z"
    with sessions.begin() as session:  # contradicts both decisions before it, though they agree
        incident = session.get_one(Incident, grown.id)
        decide(session, incident, after=4 * HOUR, to="confirmed", reason=seen, harm=True, fraud=False)
    made = ask(client, admin, "triage", **DAY)["overridden"]
    assert (made["numerator"], made["denominator"]) == (2, 5)


@pytest.mark.usefixtures("triaged")
def test_the_history_lists_every_event_and_who_decided(client: TestClient, admin: Headers) -> None:
    whole = ask(client, admin, "incident-events", **DAY)
    decisions = ask(client, admin, "incident-events", **DAY, kind="triaged", limit=2)
    rest = ask(
        client, admin, "incident-events", **DAY, kind="triaged", limit=200, cursor=decisions["next_cursor"]
    )

    assert len(whole["items"]) == 5 + 6
    listed = [*decisions["items"], *rest["items"]]
    assert [item["at"][11:13] for item in listed] == ["11", "09", "08", "08", "07", "06"]
    assert {item["key_name"] for item in listed} == {"reviewer"}
    assert rest["next_cursor"] is None


def test_clocks_run_from_the_confirmation_and_are_told_from_the_opening_too(
    client: TestClient, admin: Headers, triaged: dict[str, uuid.UUID]
) -> None:
    found = ask(client, admin, "reporting-clocks")

    listed = {uuid.UUID(item["incident_id"]): item for item in found["items"]}
    assert set(listed) == {triaged[name] for name in ("confirmed", "acknowledged", "untouched")}
    confirmed = listed[triaged["confirmed"]]
    assert confirmed["confirmed_at"] == "2026-11-23T06:00:00Z"
    assert [(due["clock"], due["days"], due["from_confirmation"]) for due in confirmed["due"]] == [
        ("widespread", 2, "2026-11-25T06:00:00Z"),
        ("death", 10, "2026-12-03T06:00:00Z"),
        ("other", 15, "2026-12-08T06:00:00Z"),
    ]
    assert [due["from_opening"] for due in confirmed["due"]] == [
        "2026-11-25T05:00:00Z",
        "2026-12-03T05:00:00Z",
        "2026-12-08T05:00:00Z",
    ]
    as_of = dt.datetime.fromisoformat(found["as_of"])
    for due in confirmed["due"]:
        assert due["is_overdue"] is (dt.datetime.fromisoformat(due["from_confirmation"]) < as_of)
    untouched = listed[triaged["untouched"]]
    assert {due["from_confirmation"] for due in untouched["due"]} == {None}
    only = ask(client, admin, "reporting-clocks", state="confirmed")["items"]
    assert [item["incident_id"] for item in only] == [str(triaged["confirmed"])]


def test_a_detector_has_its_precision_its_calibrated_rate_and_its_recall(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for number, holds in enumerate((True, True, True, False)):
            flag = seed.add_flag(session, audited, request_id=str(number), concept="harm")
            incident = seed.add_incident(session, flag)
            incident.state, incident.labels = ("confirmed" if holds else "dismissed"), {"harm": holds}
        newest = seed.add_flag(
            session,
            audited,
            request_id="newest",
            concept="harm",
            created_at=seed.START + HOUR,
            false_positive_rate=0.01,
        )
        newest.false_positive_rate_upper, newest.calibration_requests = 0.02, 1000
        newest.calibration_digest = "c" * 64
        for concept in ("harm", "weapons"):
            for outcome in ("flagged", "not_flagged"):
                new = runs.NewRun(
                    model="tiny", concept=concept, kind="positive", outcome=outcome, lost_at=None
                )
                runs.add(session, new)

    years = {"from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
    found = ask(client, admin, "detectors", **years)

    [harm] = found["items"]
    assert (harm["raised"], harm["precision"]["estimate"], harm["precision"]["labelled"]) == (5, 0.75, 4)
    # Clopper and Pearson of 3 out of 4.
    assert round(harm["precision"]["lower"], 3) == 0.194
    assert harm["false_positive_rate"] == {
        "estimate": 0.01,
        "upper": 0.02,
        "requests": 1000,
        "calibration_digest": "c" * 64,
    }
    assert (harm["canaries"]["flagged"], harm["canaries"]["read"]) == (1, 2)
    assert harm["canaries"]["recall"]["n"] == 2
    [weapons] = found["without_flags"]
    assert (weapons["model"], weapons["canaries"]["concept"]) == ("tiny", "weapons")
    assert ask(client, admin, "detectors", **years, concept="harm")["without_flags"] == []
    assert ask(client, admin, "detectors", **DAY)["items"][0]["canaries"] is None


@pytest.mark.parametrize("path", ["triage", "detectors"])
def test_an_empty_period_is_refused(client: TestClient, admin: Headers, path: str) -> None:
    answer = client.get(f"/v1/{path}", params={"from": DAY["to"], "to": DAY["from"]}, headers=admin)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "empty_range"
