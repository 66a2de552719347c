"""The coverage statement on planted counts, each figure worked out by hand."""

import datetime as dt
import itertools
import time

from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from service.store.canary import runs
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
MINUTE = dt.timedelta(minutes=1)
PATH = "/v1/coverage/statement"
TWO_HOURS = {"from": "2026-11-23T05:00:00Z", "to": "2026-11-23T07:00:00Z"}


def _plant(sessions: Sessions) -> None:
    """Plant one engine at work from 05:00 to 05:09 and 05:20 to 05:29, another from 06:00 to 06:04.

    Each minute with traffic has 10 requests of which 1 is sampled, with 4 rows of which 3 are decoded.
    """
    at_work = [*range(10), *range(20, 30)]
    with sessions.begin() as session:
        seed.add_model(session)
        for source, minutes in (("a", at_work), ("b", range(60, 65))):
            for number in minutes:
                minute = seed.START + number * MINUTE
                seed.add_coverage(
                    session,
                    hop="plugin",
                    minute=minute,
                    source=source,
                    requests_seen=10,
                    requests_sampled=1,
                    rows_sampled=4,
                    rows_handed_over=3,
                    dropped_queue_full=1,
                )
                seed.add_coverage(session, hop="sidecar", minute=minute, rows_received=3, rows_shipped=3)
                seed.add_coverage(session, hop="worker", minute=minute, rows_consumed=3, rows_decoded=3)
        # The first engine lives on until 05:40, which only a canary tells.
        seed.add_coverage(
            session,
            hop="plugin",
            minute=seed.START + 40 * MINUTE,
            source="a",
            stratum="canary",
            requests_seen=1,
            requests_sampled=1,
        )


def test_the_statement_has_every_hour_with_its_denominators_gaps_and_what_it_cannot_tell(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    _plant(sessions)

    statement = client.get(PATH, params=TWO_HOURS, headers=admin).json()

    assert statement["resolution"] == "hour"
    [model] = statement["models"]
    first, second = model["steps"]
    assert first["requests_sampled"] == {"numerator": 20, "denominator": 200, "value": 0.1}
    assert first["rows_decoded"] == {"numerator": 60, "denominator": 80, "value": 0.75}
    assert (first["rows_dropped"], first["rows_dead_lettered"], first["rows_unsettled"]) == (20, 0, 0)
    assert first["losses"] == [{"hop": "plugin", "kind": "dropped", "reason": "queue_full", "count": 20}]
    assert first["minutes"] == {"total": 60, "with_traffic": 20, "no_traffic": 21, "nobody_reported": 19}
    assert second["requests_sampled"]["denominator"] == 50
    assert second["minutes"] == {"total": 60, "with_traffic": 5, "no_traffic": 0, "nobody_reported": 55}
    assert model["minutes"] == {"total": 120, "with_traffic": 25, "no_traffic": 21, "nobody_reported": 74}
    assert model["totals"]["rows_decoded"] == {"numerator": 75, "denominator": 100, "value": 0.75}
    assert [(gap["from"][11:16], gap["to"][11:16], gap["reason"]) for gap in model["gaps"]] == [
        ("05:10", "05:20", "no_traffic"),
        ("05:30", "05:41", "no_traffic"),
        ("05:41", "06:00", "nobody_reported"),
        ("06:05", "07:00", "nobody_reported"),
    ]
    assert model["gaps_total"] == 4
    assert model["balanced"] is True
    assert model["canaries"] == {"status": "results_not_kept", "requests_seen": 1, "concepts": []}
    assert statement["not_available"] == []
    assert statement["erasures"] == {"total": 0, "open": 0, "overdue": 0, "held": 0, "oldest_at": None}
    assert (statement["legal_holds"], statement["removals"]) == ([], [])
    assert {"not_sampled", "prefix_cached"} <= {spot["code"] for spot in statement["blind_spots"]}


def test_an_equation_that_does_not_hold_is_shown_with_its_difference(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    _plant(sessions)
    with sessions.begin() as session:  # five rows that no sidecar received, in a settled minute
        seed.add_coverage(session, hop="plugin", source="c", rows_sampled=5, rows_handed_over=5)

    [model] = client.get(PATH, params=TWO_HOURS, headers=admin).json()["models"]

    assert model["balanced"] is False
    assert [(one["hop"], one["difference"]) for one in model["equations"] if not one["balanced"]] == [
        ("socket", 5)
    ]


def test_recall_has_its_interval_and_lost_canaries_are_no_part_of_it(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        lost = runs.NewRun(
            model="gone", concept="weapons", kind="negative", outcome="lost", lost_at="plugin"
        )
        runs.add(session, lost)
        seed.add_model(session)
        for outcome, lost_at, number in (
            ("flagged", None, 3),
            ("not_flagged", None, 1),
            ("lost", "plugin", 2),
        ):
            for _ in range(number):
                new = runs.NewRun(
                    model="tiny", concept="weapons", kind="positive", outcome=outcome, lost_at=lost_at
                )
                runs.add(session, new)
    now = dt.datetime.now(dt.UTC)
    range_ = {"from": (now - dt.timedelta(hours=2)).isoformat(), "to": now.isoformat()}

    gone, model = client.get(PATH, params=range_, headers=admin).json()["models"]

    assert [one["negative_lost"] for one in gone["canaries"]["concepts"]] == [1]
    assert model["canaries"]["status"] == "ran"
    [recall] = model["canaries"]["concepts"]
    assert (recall["read"], recall["flagged"], recall["lost"]) == (4, 3, 2)
    # Clopper and Pearson of 3 out of 4.
    assert {name: round(recall["recall"][name], 3) for name in ("estimate", "lower", "upper", "n")} == {
        "estimate": 0.75,
        "lower": 0.194,
        "upper": 0.994,
        "n": 4,
    }
    assert recall["false_alarms"] is None


def test_without_canaries_it_says_that_none_ran_and_no_recall(
    client: TestClient, sessions: Sessions, admin: Headers
) -> None:
    with sessions.begin() as session:
        seed.add_model(session)

    statement = client.get(PATH, params=TWO_HOURS, headers=admin).json()

    [model] = statement["models"]
    assert model["canaries"] == {"status": "none_ran", "requests_seen": 0, "concepts": []}
    assert model["minutes"]["nobody_reported"] == 120
    assert (model["balanced"], model["equations"]) == (None, [])
    assert model["steps"][0]["requests_sampled"] == {"numerator": 0, "denominator": 0, "value": None}


def test_a_year_is_told_by_day_and_in_time(client: TestClient, sessions: Sessions, admin: Headers) -> None:
    year = 366
    with sessions.begin() as session:
        seed.add_model(session)
        # One minute of every hour of the year, so that there is a gap between any two of them.
        session.execute(
            text(
                "INSERT INTO coverage_minutes (minute, source, hop, model, stratum, counter, count)"
                " SELECT minute, 's', 'plugin', 'tiny', 'uniform', 'requests_seen', 2"
                " FROM generate_series('2025-01-01T00:00:00Z'::timestamptz,"
                " '2026-01-01T23:00:00Z', '1 hour') AS minute"
            )
        )

    began = time.monotonic()
    answer = client.get(
        PATH, params={"from": "2025-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}, headers=admin
    )
    took = time.monotonic() - began

    assert answer.status_code == 200
    statement = answer.json()
    [model] = statement["models"]
    assert (statement["resolution"], len(model["steps"])) == ("day", year)
    assert {step["requests_sampled"]["denominator"] for step in model["steps"]} == {48}
    assert model["minutes"] == {
        "total": year * 1440,
        "with_traffic": year * 24,
        "no_traffic": year * 24 * 59 - 59,
        "nobody_reported": 59,
    }
    assert (model["gaps_total"], len(model["gaps"])) == (year * 24, 200)
    assert took < 60, "hours of a year must not be read one by one"


def test_a_range_that_is_empty_or_too_long_is_refused(client: TestClient, admin: Headers) -> None:
    for end, code in (("2026-11-23T05:00:00Z", "empty_range"), ("2027-11-25T05:00:00Z", "range_too_long")):
        answer = client.get(PATH, params={"from": TWO_HOURS["from"], "to": end}, headers=admin)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["code"] == code
    for one, other in itertools.pairwise(("from", "to", "from")):
        answer = client.get(PATH, params={one: TWO_HOURS[one]}, headers=admin)
        assert answer.json()["errors"][0]["field"] == other
