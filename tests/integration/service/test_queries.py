"""What compliance teams ask, one call each, with the right answer on planted data."""

import datetime as dt
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from service.store.canary import runs
from service.store.configuration.write import Report, note
from service.store.tables import ConceptVersion, Incident, IncidentEvent, ModelConcept
from subtext_sidecar.contract.configuration import Kind, configuration
from subtext_sidecar.contract.counters import Hop
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


UPDATED: dict[str, Any] = {"model": "tiny", "at": "2026-11-23T05:00:30Z", "window": "1h"}
OLD, NEW = (configuration(Kind.WORKER, {"version": version}) for version in ("1", "2"))


def plant_update(session: Session) -> seed.Audited:
    """Plant an hour before and one after: deception comes up, harm stays, nobody sees weapons."""
    audited = seed.add_model(session)
    minute = dt.timedelta(minutes=1)
    for side, at in (("old", seed.START - 30 * minute), ("new", seed.START + 10 * minute)):
        for number in range(20):
            request_id = f"{side}-{number}"
            seed.add_explanation(
                session,
                audited,
                request_id=request_id,
                captured_at=at,
                verified=side == "old" or number >= 5,
                baseline_probability=0.5,
            )
            flagged = [
                *(["deception"] if side == "new" else []),
                *(["harm"] if number < 10 else []),
            ]
            for concept in flagged:
                seed.add_flag(session, audited, request_id=request_id, captured_at=at, concept=concept)
    # Out of both windows.
    seed.add_explanation(session, audited, request_id="later", captured_at=seed.START + 60 * minute)
    seed.add_coverage(
        session,
        hop="plugin",
        minute=seed.START - 30 * minute,
        requests_seen=40,
        requests_sampled=20,
        rows_sampled=20,
    )
    seed.add_coverage(session, hop="worker", minute=seed.START - 30 * minute, rows_decoded=20)
    seed.add_coverage(session, hop="plugin", minute=seed.START, requests_seen=7)
    seed.add_coverage(session, hop="plugin", minute=seed.START + 60 * minute, requests_seen=900)
    seed.add_window(session, audited, ["old-0"], ["old-1", "old-2"], captured_at=seed.START - 30 * minute)
    session.add(ConceptVersion(digest="w" * 64, name="weapons", version=1, definition={}))
    session.flush()
    session.add(ModelConcept(model_id=audited.model.id, digest="w" * 64, name="weapons", version=1))
    now = session.scalars(select(func.clock_timestamp())).one()
    for runs_it, at in ((OLD, seed.START - 30 * minute), (NEW, seed.START + 10 * minute)):
        age = (now - at).total_seconds()
        report = Report(
            source="w", hop=Hop.WORKER, model="tiny", layer=20, configuration=runs_it, age_seconds=age
        )
        note(session, [report])
    return audited


def test_before_and_after_an_update_each_difference_has_its_interval_and_its_test(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        plant_update(session)

    found = ask(client, admin, "configuration/comparison", **UPDATED)

    before, after = found["before"], found["after"]
    assert (found["at"], before["from"], before["to"], after["from"], after["to"]) == (
        "2026-11-23T05:00:00Z",
        "2026-11-23T04:00:00Z",
        "2026-11-23T05:00:00Z",
        "2026-11-23T05:00:00Z",
        "2026-11-23T06:00:00Z",
    )
    assert "no cause" in found["note"]
    assert before["coverage"]["requests_sampled"] == {"numerator": 20, "denominator": 40, "value": 0.5}
    assert before["coverage"]["rows_decoded"] == {"numerator": 20, "denominator": 20, "value": 1.0}
    assert after["coverage"]["requests_sampled"]["denominator"] == 7
    [old], [new] = before["readers"], after["readers"]
    # All of 20: the lower limit is the 20th root of 0.025. 15 of 20 have 0.41, the others -0.1.
    assert (old["fve"]["estimate"], old["verified"]["estimate"]) == pytest.approx((0.41, 1.0))
    assert (old["verified"]["lower"], old["verified"]["upper"]) == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert (new["fve"]["estimate"], new["fve"]["n"], new["verified"]["hits"]) == (
        pytest.approx(0.2825),
        20,
        15,
    )
    # Student's: 2.0930 standard errors of 0.050663.
    assert (new["fve"]["lower"], new["fve"]["upper"]) == pytest.approx((0.17646, 0.38854), abs=1e-4)
    assert 0.45 < new["verified"]["lower"] < new["verified"]["estimate"] == 0.75 < new["verified"]["upper"]
    [tested] = before["anomalies"]
    assert (tested["anomalies"], tested["requests"], tested["rate"]["n"]) == (1, 3, 3)
    assert (tested["rate"]["lower"], tested["rate"]["upper"]) == pytest.approx((0.0084, 0.9057), abs=1e-4)
    assert after["anomalies"] == []
    deception, harm, weapons = found["concepts"]
    assert [one["concept"] for one in found["concepts"]] == ["deception", "harm", "weapons"]
    assert (deception["before"]["hits"], deception["after"]["hits"]) == (0, 20)
    # Newcombe of the exact intervals (0, 0.1684) and (0.8316, 1); at the error 2 (1 - 1 / sqrt 2)^20 they
    # just meet 0. Times three tests.
    assert (deception["difference"]["lower"], deception["difference"]["upper"]) == pytest.approx(
        (0.7618, 1.0), abs=1e-4
    )
    assert deception["difference"]["p_value"] == pytest.approx(4.32e-11, rel=0.01)
    assert deception["difference"]["p_value_adjusted"] == pytest.approx(3 * 4.32e-11, rel=0.01)
    assert (harm["before"]["estimate"], harm["after"]["estimate"], harm["after"]["n"]) == (0.5, 0.5, 20)
    for one in (harm, weapons):
        assert (one["difference"]["estimate"], one["difference"]["p_value_adjusted"]) == (0.0, 1.0)
        assert one["difference"]["lower"] < 0 < one["difference"]["upper"]
    significant = [one["difference"]["is_significant"] for one in found["concepts"]]
    assert (significant, found["tests"]) == ([True, False, False], 3)


def test_either_side_has_the_versions_that_were_in_force_and_says_where_nobody_reported(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = plant_update(session)
        successor = seed.add_decoder(session, audited.model, layer=20)
        seed.add_explanation(session, successor, request_id="new-0", captured_at=seed.START)

    found = ask(client, admin, "configuration/comparison", **UPDATED)

    kinds = {one["kind"]: one for one in found["configurations"]}
    assert kinds["worker"] == {
        "kind": "worker",
        "before": {"known": True, "digests": [OLD.digest]},
        "after": {"known": True, "digests": [NEW.digest]},
        "changed": True,
    }
    unknown = {"known": False, "digests": []}
    assert kinds["model"] == {"kind": "model", "before": unknown, "after": unknown, "changed": None}
    # Each decoder of the one side against each of the other, and all are tested together.
    pairs = {(one["decoder_before"]["id"], one["decoder_after"]["id"]) for one in found["concepts"]}
    first = str(audited.decoder.id)
    assert pairs == {(first, first), (first, str(successor.decoder.id))}
    assert (len(found["concepts"]), found["tests"]) == (6, 6)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "nobody"}, 404, "unknown_model"),
        ({"window": "32d"}, 422, "range_too_long"),
        ({"at": "2199-01-01T00:00:00Z"}, 422, "in_the_future"),
    ],
)
def test_a_comparison_is_of_a_known_model_and_of_what_has_been(
    client: TestClient, admin: Headers, changes: dict[str, str], status: int, code: str
) -> None:
    answer = client.get("/v1/configuration/comparison", params=UPDATED | changes, headers=admin)

    assert answer.status_code == status
    assert code in {answer.json()["code"], *(one["code"] for one in answer.json().get("errors", ()))}


@pytest.mark.parametrize("path", ["triage", "detectors"])
def test_an_empty_period_is_refused(client: TestClient, admin: Headers, path: str) -> None:
    answer = client.get(f"/v1/{path}", params={"from": DAY["to"], "to": DAY["from"]}, headers=admin)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "empty_range"
