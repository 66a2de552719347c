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
        seed.add_model(session)
        seed.add_coverage(session, hop="plugin", requests_seen=50, requests_sampled=5, rows_sampled=20)
        seed.add_coverage(
            session, hop="plugin", source="other", requests_seen=10, requests_sampled=1, rows_sampled=4
        )
        seed.add_coverage(
            session, hop="plugin", stratum="opt_in", requests_seen=2, requests_sampled=2, rows_sampled=10
        )
        seed.add_coverage(session, hop="plugin", stratum="opt_out", requests_seen=8)
        seed.add_coverage(session, hop="plugin", minute=next_minute, rows_sampled=16, dropped_queue_full=2)
        seed.add_coverage(
            session, hop="worker", minute=next_minute, rows_decoded=30, dead_lettered_malformed_header=3
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
    assert tiny["requests_sampled"] == {"numerator": 8, "denominator": 70, "value": 8 / 70}
    assert tiny["rows_decoded"] == {"numerator": 30, "denominator": 50, "value": 0.6}
    assert (tiny["rows_dropped"], tiny["rows_dead_lettered"], tiny["rows_unsettled"]) == (2, 3, 15)
    opt_in, opt_out, uniform = tiny["strata"]
    assert opt_in["requests_sampled"] == {"numerator": 2, "denominator": 2, "value": 1.0}
    assert opt_out["requests_sampled"] == {"numerator": 0, "denominator": 8, "value": 0.0}
    assert uniform["requests_sampled"] == {"numerator": 6, "denominator": 60, "value": 0.1}
    assert [stratum["rows_unsettled"] for stratum in tiny["strata"]] == [10, 0, 5]
    lost = {"model": "tiny", "stratum": "uniform"}
    assert report["losses"] == [
        {"hop": "plugin", "kind": "dropped", "reason": "queue_full", "count": 2, **lost},
        {"hop": "worker", "kind": "dead_lettered", "reason": "malformed_header", "count": 3, **lost},
    ]
    assert report["counts"][3] == {
        "start": "2026-11-23T05:00:00Z",
        "hop": "plugin",
        "model": "tiny",
        "stratum": "uniform",
        "counters": {"requests_sampled": 6, "requests_seen": 60, "rows_sampled": 24},
    }
    spots = {spot["code"]: spot["count"] for spot in report["blind_spots"]}
    assert {"silent_sidecar", "not_sampled", "prefix_cached"} <= spots.keys()
    assert "silent_plugin" not in spots
    assert spots["opt_out"] == 8


def test_a_stratum_narrows_what_tells_strata_apart_and_no_total(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    _fill(sessions)

    report = client.get(
        "/v1/coverage", params={**HOUR, "stratum": "opt_in", "model": "tiny"}, headers=admin
    ).json()

    [tiny] = report["models"]
    assert tiny["requests_sampled"]["denominator"] == 70
    assert [stratum["stratum"] for stratum in tiny["strata"]] == ["opt_in"]
    assert [entry["stratum"] for entry in report["counts"]] == ["opt_in"]
    assert report["losses"] == []
    [balance] = report["reconciliation"]
    assert balance["hops"][0]["rows_in"] == {"rows_sampled": 50}
    assert [stratum["stratum"] for stratum in balance["strata"]] == ["opt_in"]


def test_an_unknown_stratum_is_refused_with_those_that_exist(client: TestClient, admin: Headers) -> None:
    answer = client.get("/v1/coverage", params={"stratum": "made_up"}, headers=admin)

    assert answer.status_code == 422
    assert "'opt_in'" in answer.json()["errors"][0]["message"]


def _flow(sessions: Sessions, minute: dt.datetime, *, consumed: int) -> None:
    """Ten rows of which two are thinned; the sidecar ships eight."""
    with sessions.begin() as session:
        seed.add_coverage(session, hop="plugin", minute=minute, rows_sampled=10, rows_handed_over=10)
        seed.add_coverage(
            session, hop="sidecar", minute=minute, rows_received=10, thinned=2, rows_shipped=8
        )
        seed.add_coverage(
            session, hop="worker", minute=minute, rows_consumed=consumed, rows_decoded=consumed
        )


def test_what_no_worker_took_up_is_in_flight_until_workers_are_past_its_minute(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_model(session)
    _flow(sessions, seed.START, consumed=5)

    [waiting] = client.get("/v1/coverage", params=HOUR, headers=admin).json()["reconciliation"]
    _flow(sessions, seed.START + dt.timedelta(minutes=11), consumed=8)
    later = client.get("/v1/coverage", params={**HOUR, "step": "hour"}, headers=admin).json()

    assert [hop["in_flight"] for hop in waiting["hops"]] == [0, 0, 0, 3, 0]
    assert waiting["balanced"] is True
    assert waiting["settled_before"] == "2026-11-23T04:50:00Z"
    [past] = later["reconciliation"]
    assert past["settled_before"] == "2026-11-23T05:01:00Z"
    assert past["balanced"] is past["strata"][0]["balanced"] is False
    assert [(hop["in_flight"], hop["difference"]) for hop in past["hops"]] == [
        (0, 0),
        (0, 0),
        (0, 0),
        (0, 3),
        (0, 0),
    ]
    assert past["hops"][2]["rows_out"] == {"rows_shipped": 16, "thinned": 4}
    assert later["models"][0]["rows_thinned"] == 4


def test_coverage_by_hour_merges_minutes_and_by_model_leaves_others_out(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    _fill(sessions)

    report = client.get(
        "/v1/coverage", params={**HOUR, "step": "hour", "model": "tiny"}, headers=admin
    ).json()

    found = [(entry["hop"], entry["stratum"], entry["start"]) for entry in report["counts"]]
    assert found == [
        ("plugin", "opt_in", "2026-11-23T05:00:00Z"),
        ("plugin", "opt_out", "2026-11-23T05:00:00Z"),
        ("plugin", "uniform", "2026-11-23T05:00:00Z"),
        ("worker", "uniform", "2026-11-23T05:00:00Z"),
    ]
    assert report["counts"][2]["counters"]["rows_sampled"] == 40


def test_without_any_count_every_hop_is_reported_silent(client: TestClient, admin: Headers) -> None:
    report = client.get("/v1/coverage", headers=admin).json()

    length = dt.datetime.fromisoformat(report["to"]) - dt.datetime.fromisoformat(report["from"])
    assert dt.timedelta(hours=1) <= length <= dt.timedelta(hours=1, minutes=1)
    assert report["models"] == report["reconciliation"] == []
    codes = [spot["code"] for spot in report["blind_spots"]]
    assert codes[:3] == ["silent_plugin", "silent_sidecar", "silent_worker"]
