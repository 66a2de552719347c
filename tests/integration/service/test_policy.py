"""What a proposed policy would have taken, by the operation; the rules are in tests/unit/service/policy."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.orm import Session, sessionmaker

from service.store.tables import Sample
from tests.integration.service import seed

Headers = dict[str, str]
Ask = Callable[..., Response]
PERIOD = {"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T06:00:00Z"}


@pytest.fixture
def ask(client: TestClient, headers_for: Callable[..., Headers]) -> Ask:
    def send(policy: Any, **changes: Any) -> Response:
        body = {"model": "tiny", "policy": policy, **PERIOD, **changes}
        return client.post("/v1/policy/dry-run", json=body, headers=headers_for("coverage:read"))

    return send


@pytest.fixture
def traffic(sessions: sessionmaker[Session]) -> None:
    """Plant 400 requests of which 40 were sampled, with two stored rows each."""
    with sessions.begin() as session:
        audited = seed.add_model(session)
        seed.add_coverage(session, hop="plugin", requests_seen=400, requests_sampled=40, rows_sampled=120)
        seed.add_coverage(session, hop="worker", rows_consumed=120, rows_decoded=120)
        for number in range(40):
            for position, reason, probability in ((30, "prompt_end", 0.1), (33, "decode", 0.025)):
                session.add(
                    Sample(
                        id=uuid.uuid4(),
                        model_id=audited.model.id,
                        request_id=f"r{number}",
                        capture_id=uuid.UUID(int=number + 1),
                        layer=20,
                        position=position,
                        token_id=1,
                        token_text=seed.SECRET_TOKEN,
                        phase="prefill" if reason == "prompt_end" else "decode",
                        norm=1.0,
                        stratum="uniform",
                        inclusion_probability=probability,
                        baseline_probability=probability,
                        reason=reason,
                        screen_scores={},
                        captured_at=seed.START + dt.timedelta(seconds=number),
                    )
                )


def stratum(answer: Response, name: str = "uniform") -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in answer.json()["strata"] if one["stratum"] == name]
    return found[0]


@pytest.mark.usefixtures("traffic")
def test_requests_follow_from_counts_and_rows_from_readings(ask: Ask) -> None:
    answer = ask({"capture": {"request_rate": 0.5, "prompt_window": 1}})

    assert answer.status_code == 200, answer.text
    found = stratum(answer)
    assert found["was"] == {"requests": 400, "sampled": 40, "rows": 120, "decoded": 120}
    assert (found["candidates"], found["rate"]) == (400, 0.5)
    assert found["requests"] | {"lower": 0, "upper": 0} == {
        "expected": 200.0,
        "lower": 0,
        "upper": 0,
        "basis": "exact",
    }
    # A row at the prompt's end and one of the answer each, as it was: three rows a request in the ledger.
    assert found["rows"]["expected"] == pytest.approx(600.0)
    assert found["rows"]["lower"] < 600.0 < found["rows"]["upper"]
    assert answer.json()["readings"] == 40
    assert {"which_requests", "other_row_rules"} <= {one["code"] for one in answer.json()["limits"]}
    assert seed.SECRET_TOKEN not in answer.text


@pytest.mark.usefixtures("traffic")
def test_a_policy_is_answered_whole(ask: Ask) -> None:
    policy = ask({"screen": {"baseline_rate": 0.5}}).json()["policy"]

    assert policy["capture"]["decode_stride"] == 8
    assert policy["screen"]["baseline_rate"] == 0.5


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("policy", "field", "said"),
    [
        ({"capture": {"request_rate": 2}}, "policy.capture.request_rate", "<= 1.0"),
        ({"capture": {"windw": 2}}, "policy.capture.windw", "unknown field"),
        ({"capture": {"window": 9}}, "policy.capture.window", "at most decode_stride"),
        ({"screens": {}}, "policy.screens", "unknown field"),
        ({"capture": {"request_rate": "x" * 70_000}}, "policy", "at most 65536 bytes"),
    ],
    ids=["range", "unknown", "contradiction", "section", "long"],
)
def test_what_a_sidecar_would_refuse_is_refused_by_its_field(
    ask: Ask, policy: Any, field: str, said: str
) -> None:
    answer = ask(policy)

    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["location"], error["field"]) == ("body", field)
    assert said in error["message"]


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "none"}, 404, "unknown_model"),
        ({"to": "2026-11-23T05:00:00Z"}, 422, "empty_range"),
        ({"to": "2026-12-30T05:00:00Z"}, 422, "range_too_long"),
    ],
)
def test_a_period_or_model_that_is_none_is_refused(
    ask: Ask, changes: dict[str, str], status: int, code: str
) -> None:
    answer = ask({}, **changes)

    assert answer.status_code == status
    assert code in answer.text
