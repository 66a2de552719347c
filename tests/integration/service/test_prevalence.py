import datetime as dt
import uuid
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session, sessionmaker

from service.metrics import Metrics
from service.prevalence.assumptions import CODES
from service.store.canary.tables import CanaryRun
from service.store.tables import FlagStatus
from service.watch.prevalence_watch import PrevalenceWatch, WatchPlan
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
HOUR = {"model": "tiny", "from": "2026-11-23T05:00:00Z", "to": "2026-11-23T06:00:00Z"}
MINUTE = dt.timedelta(minutes=1)


def read_requests(
    session: Session,
    audited: seed.Audited,
    count: int,
    *,
    flagged: int = 0,
    calibrated: bool = False,
    **facts: Any,
) -> None:
    """Store requests of two rows each, of which the first are flagged with deception."""
    start = facts.pop("captured_at", seed.START)
    for number in range(count):
        request_id = f"r{uuid.uuid4().hex}"
        for position in (40, 44):
            seed.add_explanation(
                session,
                audited,
                request_id=request_id,
                position=position,
                captured_at=start + dt.timedelta(seconds=position),
                concept="deception" if number < flagged else None,
                **facts,
            )
        if number < flagged:
            flag = seed.add_flag(session, audited, request_id=request_id, captured_at=start)
            if calibrated:
                flag.status = FlagStatus.CALIBRATED
                flag.false_positive_rate, flag.false_positive_rate_upper = 0.002, 0.009
                flag.calibration_requests, flag.calibration_digest = 500, "c" * 64


def ask(client: TestClient, headers: Headers, concept: str = "deception", **changes: str) -> dict[str, Any]:
    answer = client.get("/v1/prevalence", params={**HOUR, "concept": concept, **changes}, headers=headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_request_weighs_what_its_baseline_probability_says(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        read_requests(session, audited, 10, flagged=5, baseline_probability=0.5)
        read_requests(session, audited, 10, flagged=1, baseline_probability=0.1)
        read_requests(session, audited, 30, flagged=30, baseline_probability=0.0)  # by the screen alone
        other = seed.add_model(session, "other")
        read_requests(session, other, 3, flagged=3)

    report = ask(client, admin)

    [found] = report["estimates"]
    assert found["estimate"] == pytest.approx((5 * 2 + 1 * 10) / (10 * 2 + 10 * 10))
    assert (found["requests"], found["requests_flagged"], found["rows"]) == (20, 6, 40)
    assert found["requests_verified"] == 20
    assert 0 < found["lower"] < found["estimate"] < found["upper"] < 1
    assert 0 < found["lower_anytime"] < found["estimate"]
    assert 5 < found["effective_requests"] < 20
    assert (found["layer"], found["decoder"]["name"]) == (20, "tiny-l20")
    assert (report["confidence"], report["calibrated"]) == (0.95, False)


def test_a_request_has_the_largest_probability_of_its_rows(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for position, probability in ((40, 0.1), (44, 0.2), (48, 0.0)):
            seed.add_explanation(
                session, audited, position=position, baseline_probability=probability, concept="deception"
            )
        seed.add_flag(session, audited)
        read_requests(session, audited, 5, baseline_probability=1.0)

    [found] = ask(client, admin)["estimates"]

    assert found["estimate"] == pytest.approx(5 / (5 + 5))
    assert (found["rows"], found["requests"]) == (2 + 10, 6)


def test_losses_are_made_up_for_by_stratum_and_minute(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        read_requests(session, audited, 4, flagged=4, baseline_probability=0.5)
        read_requests(session, audited, 4, baseline_probability=0.5, captured_at=seed.START + MINUTE)
        read_requests(session, audited, 4, baseline_probability=1.0, stratum="opt_in")
        seed.add_coverage(
            session,
            hop="plugin",
            rows_sampled=26,
            dropped_after_end=4,
            dropped_queue_full=6,
            requests_seen=16,
        )
        seed.add_coverage(session, hop="sidecar", thinned=2, dropped_buffer_full=5, dropped_trimmed=3)
        seed.add_coverage(session, hop="worker", dead_lettered_zero_vector=2, rows_trimmed_but_read=1)
        seed.add_coverage(session, hop="plugin", minute=seed.START + MINUTE, rows_sampled=8)
        seed.add_coverage(session, hop="plugin", stratum="opt_out", requests_seen=7)
        # Canaries are no traffic, so that their rows make up for nobody's.
        seed.add_coverage(session, hop="plugin", stratum="canary", rows_sampled=900, requests_seen=90)
        seed.add_coverage(session, hop="sidecar", stratum="canary", dropped_buffer_full=100)

    report = ask(client, admin)

    [found] = report["estimates"]
    assert found["estimate"] == pytest.approx(4 * 2 * 4 / (4 * 2 * 4 + 4 * 2 + 4 * 1))
    assert found["retained"] == pytest.approx((0.25 + 1 + 1) / 3)
    counted = {one["code"]: one["count"] for one in report["assumptions"] if one["count"] is not None}
    assert counted == {"opted_out": 7, "uncounted_minutes": 4, "uncalibrated_flags": 4}


def test_all_concepts_at_once_are_told_as_one_by_one(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        read_requests(session, audited, 6, flagged=2, calibrated=True, baseline_probability=0.5)
        seed.add_flag(session, audited, request_id="screened", concept="weapons")
        run = CanaryRun(id=uuid.uuid4(), model="tiny", concept="fraud", kind="positive", outcome="flagged")
        run.ended_at = seed.START
        session.add(run)
        other = seed.add_model(session, "other")
        read_requests(session, other, 3, flagged=3)
        seed.add_model(session, "unflagged")
    ranges = {"from": HOUR["from"], "to": HOUR["to"]}

    answer = client.get("/v1/concepts/prevalence", params=ranges, headers=admin)

    items = answer.json()["items"]
    assert [(one["model"], one["concept"], one["calibrated"]) for one in items] == [
        ("other", "deception", False),
        ("tiny", "deception", True),
        ("tiny", "fraud", False),
        ("tiny", "weapons", False),
    ]
    assert [one["estimates"][0]["estimate"] for one in items] == pytest.approx([1, 1 / 3, 0, 0])
    for one in items:
        alone = ask(client, admin, one["concept"], model=one["model"], **ranges)
        assert one == {**alone, "estimates": one["estimates"]}
        [found], [expected] = one["estimates"], alone["estimates"]
        # Requests come in any order, so that sums of their weights may differ in their last digit.
        assert found == {
            name: pytest.approx(value) if isinstance(value, float) else value
            for name, value in expected.items()
        }
    narrowed = client.get("/v1/concepts/prevalence", params={**ranges, "model": "other"}, headers=admin)
    assert narrowed.json()["items"] == [items[0]]


def test_each_decoder_answers_for_itself(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        read_requests(session, audited, 3, flagged=3)
        later = seed.add_decoder(session, audited.model, layer=12)
        read_requests(session, later, 4)

    shares = [(one["layer"], one["estimate"]) for one in ask(client, admin)["estimates"]]

    assert shares == [(12, 0.0), (20, 1.0)]


def test_what_was_stored_before_captures_had_an_identity_counts_by_its_request_id(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        for request_id in ("old-1", "old-2"):
            seed.add_explanation(session, audited, request_id=request_id, capture_id=None)
        seed.add_flag(session, audited, request_id="old-1", capture_id=None)

    [found] = ask(client, admin)["estimates"]

    assert (found["requests"], found["requests_flagged"]) == (2, 1)


def test_without_readings_nothing_is_estimated(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_model(session)

    report = ask(client, admin, concept="deceptoin")

    assert report["estimates"] == []
    assert report["assumptions"][0]["code"] == "unseen_concept"
    assert {one["code"] for one in report["assumptions"]} <= CODES


def test_a_model_that_nobody_read_is_unknown(client: TestClient, admin: Headers) -> None:
    answer = client.get("/v1/prevalence", params={**HOUR, "concept": "deception"}, headers=admin)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"from": "2026-11-23T06:00:00Z"}, "empty_range"),
        ({"from": "2026-10-01T06:00:00Z"}, "range_too_long"),
    ],
)
def test_a_wrong_range_is_refused(
    client: TestClient, admin: Headers, changes: dict[str, str], code: str
) -> None:
    answer = client.get("/v1/prevalence", params={**HOUR, "concept": "deception", **changes}, headers=admin)

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


@pytest.mark.parametrize("left_out", ["model", "concept", "from", "to"])
def test_every_parameter_is_needed(client: TestClient, admin: Headers, left_out: str) -> None:
    params = {name: value for name, value in {**HOUR, "concept": "c"}.items() if name != left_out}

    answer = client.get("/v1/prevalence", params=params, headers=admin)

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, left_out)


def test_it_takes_the_scope_of_flags(client: TestClient, headers_for: Any) -> None:
    params = {**HOUR, "concept": "deception"}

    def status(scope: str) -> int:
        return client.get("/v1/prevalence", params=params, headers=headers_for(scope)).status_code

    assert (status("flags:read"), status("coverage:read")) == (404, 403)


def shown(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the prevalence metrics by name and concept."""
    return {
        (sample.name, sample.labels.get("concept", "")): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name.startswith(("subtext_concept_prevalence", "subtext_concept_calibrated_prevalence"))
    }


def test_the_metrics_show_flagged_and_watched_concepts(sessions: Sessions) -> None:
    with sessions.begin() as session:
        audited = seed.add_model(session)
        read_requests(session, audited, 40, flagged=20, baseline_probability=0.5)
        read_requests(session, audited, 40, flagged=20, calibrated=True, baseline_probability=0.5)
    metrics = Metrics(CollectorRegistry(auto_describe=True))
    metrics.set_prevalence_thresholds({"weapons": 0.01})
    watch = PrevalenceWatch(sessions, metrics, WatchPlan(24, 60.0, {"weapons": 0.01}))
    now = seed.START + dt.timedelta(hours=2)

    assert shown(metrics) == {
        ("subtext_concept_prevalence_refreshed_timestamp_seconds", ""): 0.0,
        ("subtext_concept_prevalence_threshold_ratio", "weapons"): 0.01,
    }
    watch.refresh(now)

    found = shown(metrics)
    assert found["subtext_concept_prevalence_ratio", "deception"] == 0.5
    assert 0.2 < found["subtext_concept_prevalence_lower_ratio", "deception"] < 0.5
    # Leads do not count.
    assert 0.05 < found["subtext_concept_calibrated_prevalence_lower_ratio", "deception"] < 0.25
    assert found["subtext_concept_prevalence_requests", "deception"] == 80
    assert found["subtext_concept_prevalence_ratio", "weapons"] == 0
    assert found["subtext_concept_calibrated_prevalence_lower_ratio", "weapons"] == 0
    assert found["subtext_concept_prevalence_requests", "weapons"] == 80
    assert found["subtext_concept_prevalence_refreshed_timestamp_seconds", ""] == now.timestamp()

    watch.refresh(now + dt.timedelta(days=3))

    assert len(shown(metrics)) == 2, "what is over is not shown any more"
