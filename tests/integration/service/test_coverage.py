import datetime as dt

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
HOUR = {"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T06:00:00Z"}


def _fill(sessions: Sessions) -> None:
    next_minute = seed.START + dt.timedelta(minutes=1)
    with sessions.begin() as session:
        seed.add_coverage(session, hop="plugin", requests_seen=50, requests_sampled=5, rows_sampled=20)
        seed.add_coverage(
            session, hop="plugin", source="other", requests_seen=10, requests_sampled=1, rows_sampled=4
        )
        seed.add_coverage(session, hop="plugin", minute=next_minute, rows_sampled=16, dropped_queue_full=2)
        seed.add_coverage(
            session, hop="worker", minute=next_minute, rows_decoded=30, dead_lettered_malformed=3
        )
        seed.add_coverage(session, hop="plugin", model="another", rows_sampled=7)
        seed.add_coverage(
            session, hop="plugin", minute=seed.START + dt.timedelta(hours=1), rows_sampled=999
        )


def test_coverage_sums_sources_and_keeps_every_denominator(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    _fill(sessions)

    report = client.get("/v1/coverage", params=HOUR, headers=admin).json()

    another, tiny = report["models"]
    assert another["rows_decoded"] == {"numerator": 0, "denominator": 7, "value": 0.0}
    assert another["requests_sampled"] == {"numerator": 0, "denominator": 0, "value": None}
    assert tiny["requests_sampled"] == {"numerator": 6, "denominator": 60, "value": 0.1}
    assert tiny["rows_decoded"] == {"numerator": 30, "denominator": 40, "value": 0.75}
    assert (tiny["rows_dropped"], tiny["rows_dead_lettered"], tiny["rows_unsettled"]) == (2, 3, 5)
    assert report["losses"] == [
        {"hop": "plugin", "model": "tiny", "kind": "dropped", "reason": "queue_full", "count": 2},
        {"hop": "worker", "model": "tiny", "kind": "dead_lettered", "reason": "malformed", "count": 3},
    ]
    assert report["counts"][1] == {
        "start": "2026-11-23T05:00:00Z",
        "hop": "plugin",
        "model": "tiny",
        "counters": {"requests_sampled": 6, "requests_seen": 60, "rows_sampled": 24},
    }
    codes = {spot["code"] for spot in report["blind_spots"]}
    assert {"silent_sidecar", "not_sampled", "prefix_cache"} <= codes
    assert "silent_plugin" not in codes


def test_coverage_by_hour_merges_minutes_and_by_model_leaves_others_out(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    _fill(sessions)

    report = client.get(
        "/v1/coverage", params={**HOUR, "step": "hour", "model": "tiny"}, headers=admin
    ).json()

    assert [(entry["hop"], entry["start"]) for entry in report["counts"]] == [
        ("plugin", "2026-11-23T05:00:00Z"),
        ("worker", "2026-11-23T05:00:00Z"),
    ]
    assert report["counts"][0]["counters"]["rows_sampled"] == 40


def test_without_any_count_every_hop_is_reported_silent(client: TestClient, admin: Headers) -> None:
    report = client.get("/v1/coverage", headers=admin).json()

    length = dt.datetime.fromisoformat(report["to"]) - dt.datetime.fromisoformat(report["from"])
    assert dt.timedelta(hours=1) <= length <= dt.timedelta(hours=1, minutes=1)
    assert report["models"] == []
    codes = [spot["code"] for spot in report["blind_spots"]]
    assert codes[:3] == ["silent_plugin", "silent_sidecar", "silent_worker"]
