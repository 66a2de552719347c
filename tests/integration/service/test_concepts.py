"""Concepts by model: every version, how it is calibrated, and how often it flagged."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from service.store.configuration import write
from service.store.configuration.write import Report
from service.store.tables import RequestName
from service.store.write.concepts import NewConcept, register_concepts
from subtext_sidecar.contract.configuration import Kind, configuration
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed

Headers = dict[str, str]
OLD, NEW = "1" * 64, "2" * 64
RANGE = "from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z"
MEASURED = {"requests": 1200, "incidents": 9, "rate": 0.0075, "upper_limit": 0.0131}
CALIBRATION = {
    "digest": "c" * 64,
    "positions_judged": 24,
    "concepts": {
        "deception": {
            "digest": NEW,
            "positions_required": 3,
            "threshold": 0.8,
            "target_false_positive_rate": 0.01,
            "reason": None,
            "measured": MEASURED,
        }
    },
    "held_out": None,
}


@pytest.fixture
def watched(sessions: sessionmaker[Session]) -> None:
    """Plant two versions of a concept, of which the calibrated one flagged one of two requests."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for version, digest in ((1, OLD), (2, NEW)):
            definition = {"severity": "critical", "positions_required": 2, "description": f"v{version}"}
            concept = NewConcept(name="deception", version=version, digest=digest, definition=definition)
            register_concepts(session, audited.model.id, [concept])
        seed.add_explanation(session, audited)
        # Two names of one request, which is read once.
        seed.add_explanation(session, audited, request_id="chat-2", position=1, request_names=("client-2",))
        seed.add_flag(session, audited).concept_digest = NEW
        concepts = configuration(Kind.CONCEPTS, {"concepts": [{"name": "deception", "digest": NEW}]})
        for one in (concepts, configuration(Kind.CONCEPT_CALIBRATION, CALIBRATION)):
            report = Report(source="w", hop=Hop.WORKER, model="tiny", layer=20, configuration=one)
            write.note(session, [report])


@pytest.fixture
def versions(
    client: TestClient,
    headers_for: Callable[..., Headers],
    watched: None,  # noqa: ARG001  # planted before anything is asked
) -> dict[int, dict[str, Any]]:
    answer = client.get(f"/v1/concepts?{RANGE}", headers=headers_for("flags:read"))
    assert answer.status_code == 200, answer.text
    [concept] = answer.json()["items"]
    assert (concept["model"], concept["concept"]) == ("tiny", "deception")
    return {one["version"]: one for one in concept["versions"]}


def test_a_calibrated_version_has_its_rate_with_limit_and_denominator(
    versions: dict[int, dict[str, Any]],
) -> None:
    new = versions[2]

    assert (new["status"], new["not_calibrated_because"], new["is_in_force"]) == ("calibrated", None, True)
    assert new["false_positive_rate"] == {
        "estimate": 0.0075,
        "upper": 0.0131,
        "requests": 1200,
        "calibration_digest": "c" * 64,
        "is_held_out": False,
    }
    assert (new["positions_required"], new["positions_judged"], new["threshold"]) == (3, 24, 0.8)


def test_one_that_nobody_calibrated_is_a_lead_and_says_why(versions: dict[int, dict[str, Any]]) -> None:
    old = versions[1]

    assert (old["status"], old["false_positive_rate"], old["is_in_force"]) == ("lead", None, False)
    assert "subtext calibrate" in old["not_calibrated_because"]
    assert old["positions_required"] == 2
    assert list(versions) == [2, 1]


def test_what_it_flagged_has_its_denominator_and_interval(versions: dict[int, dict[str, Any]]) -> None:
    flagged = versions[2]["flagged"]

    assert (flagged["flagged"], flagged["read"], flagged["estimate"]) == (1, 2, 0.5)
    assert 0.0 < flagged["lower"] < 0.5 < flagged["upper"] < 1.0
    assert versions[1]["flagged"]["flagged"] == 0


def test_a_request_at_the_edge_of_a_range_is_read_and_flagged_in_one_and_the_same(
    client: TestClient, headers_for: Callable[..., Headers], sessions: sessionmaker[Session]
) -> None:
    edge, before = seed.START, seed.START - timedelta(minutes=1)
    with sessions.begin() as session:
        audited = seed.add_model(session)
        concept = NewConcept(name="deception", version=1, digest=NEW, definition={"positions_required": 2})
        register_concepts(session, audited.model.id, [concept])
        # The first sample lies before the edge, and what is flagged behind it.
        seed.add_explanation(session, audited, captured_at=before)
        seed.add_flag(session, audited, captured_at=edge).concept_digest = NEW
        # Nothing that was read of this one is left: it is no part of any share.
        gone = seed.add_flag(session, audited, request_id="chat-2", captured_at=edge)
        gone.concept_digest = NEW
        session.execute(delete(RequestName).where(RequestName.request_id == "chat-2"))

    def share(start: datetime, end: datetime) -> tuple[int, int]:
        query = {"from": start.isoformat(), "to": end.isoformat()}
        answer = client.get("/v1/concepts", params=query, headers=headers_for("flags:read"))
        [one] = answer.json()["items"][0]["versions"]
        return one["flagged"]["flagged"], one["flagged"]["read"]

    day = timedelta(days=1)
    assert (share(edge - day, edge), share(edge, edge + day)) == ((1, 1), (0, 0))


@pytest.mark.usefixtures("watched")
def test_without_readings_there_is_no_share(
    client: TestClient, headers_for: Callable[..., Headers]
) -> None:
    answer = client.get(
        "/v1/concepts?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", headers=headers_for("flags:read")
    )

    shares = [one["flagged"] for one in answer.json()["items"][0]["versions"]]
    assert [(one["read"], one["estimate"], one["upper"]) for one in shares] == [(0, None, None)] * 2


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("from=2026-11-24T00:00:00Z&to=2026-11-23T00:00:00Z", "empty_range"),
        ("from=2026-09-01T00:00:00Z&to=2026-11-23T00:00:00Z", "range_too_long"),
    ],
)
def test_a_range_that_is_none_is_refused(
    client: TestClient, headers_for: Callable[..., Headers], query: str, code: str
) -> None:
    answer = client.get(f"/v1/concepts?{query}", headers=headers_for("flags:read"))

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)
