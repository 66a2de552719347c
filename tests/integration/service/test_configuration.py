"""What was in force at a time: all of it, by whom it was said, and what nobody said."""

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.store.configuration import write
from service.store.configuration.period import HOLDS
from service.store.configuration.tables import ConfigurationPeriod
from service.store.configuration.write import Report
from service.store.tables import Sample
from subtext_sidecar.contract.configuration import MAX_CONTENT_BYTES, Configuration, Kind, configuration
from subtext_sidecar.contract.counters import Hop
from tests.integration.service import seed

Headers = dict[str, str]
Sessions = sessionmaker[Session]
OLD = configuration(Kind.WORKER, {"anomaly": {"fdr": 0.1}, "version": "1"})
NEW = configuration(Kind.WORKER, {"anomaly": {"fdr": 0.2}, "version": "2"})
MINUTE = 60.0
HOUR = 3600.0


@pytest.fixture
def reads_coverage(headers_for: Callable[..., Headers]) -> Headers:
    return headers_for("coverage:read")


def plant(
    sessions: Sessions, source: str, runs: Configuration, *ages: float, model: str = "tiny", layer: int = 20
) -> None:
    """Let a worker report at each of these ages, in seconds."""
    for age in ages:
        report = Report(
            source=source, hop=Hop.WORKER, model=model, layer=layer, configuration=runs, age_seconds=age
        )
        with sessions.begin() as session:
            write.note(session, [report])


def minutes(first: float, last: float) -> list[float]:
    """Return ages from the first to the last, a minute apart, in seconds."""
    return [age * MINUTE for age in range(int(first), int(last) - 1, -1)]


def ago(sessions: Sessions, seconds: float) -> str:
    with sessions() as session:
        now = session.scalar(select(func.clock_timestamp()))
    assert isinstance(now, dt.datetime)
    return (now - dt.timedelta(seconds=seconds)).isoformat()


def asked(client: TestClient, headers: Headers, path: str = "", **parameters: str) -> Any:
    answer = client.get(f"/v1/configuration{path}", headers=headers, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def kind_of(answer: Any, kind: str = "worker") -> Any:
    [model] = answer["models"]
    [found] = [one for one in model["kinds"] if one["kind"] == kind]
    return found


def test_what_was_in_force_is_told_whole_with_since_when_until_when_and_by_whom(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, *minutes(60, 50))

    answer = asked(client, reads_coverage, model="tiny", at=ago(sessions, 55 * MINUTE))

    found = kind_of(answer)
    [version] = found["versions"]
    assert (found["known"], found["note"]) == (True, None)
    assert (version["digest"], version["content"]) == (OLD.digest, json.loads(OLD.content))
    [source] = version["sources"]
    assert (source["source"], source["hop"], source["layer"]) == ("worker-1", "worker", 20)
    assert source["is_confirmed"]
    assert version["since"] < answer["at"] < version["seen_until"]


def test_kinds_that_nobody_reported_are_not_known_and_a_model_of_which_nothing_is_too(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, 0)

    for model, known in (("tiny", {"worker"}), ("nobody", set())):
        [answered] = asked(client, reads_coverage, model=model)["models"]
        assert [one["kind"] for one in answered["kinds"]] == [*map(str, Kind)]
        assert {one["kind"] for one in answered["kinds"] if one["known"]} == known
        assert all(bool(one["versions"]) == one["known"] for one in answered["kinds"])
        assert all(
            "no process had reported" in one["note"] for one in answered["kinds"] if not one["known"]
        )


def test_during_a_rolling_update_both_versions_are_in_force(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, *minutes(60, 40))
    plant(sessions, "worker-2", NEW, *minutes(45, 20))

    during = kind_of(asked(client, reads_coverage, model="tiny", at=ago(sessions, 42 * MINUTE)))
    after = kind_of(asked(client, reads_coverage, model="tiny", at=ago(sessions, 30 * MINUTE)))

    assert [one["digest"] for one in during["versions"]] == [OLD.digest, NEW.digest]
    assert [one["digest"] for one in after["versions"]] == [NEW.digest]


def test_in_a_gap_nothing_is_known_and_a_report_stands_for_five_minutes_only(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, 60 * MINUTE, 30 * MINUTE)

    held, gap = (
        kind_of(asked(client, reads_coverage, model="tiny", at=ago(sessions, age * MINUTE)))
        for age in (57, 45)
    )

    [version] = held["versions"]
    assert not version["sources"][0]["is_confirmed"]
    assert not gap["known"]


def test_a_process_that_runs_another_version_ends_the_one_before(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "plugin-1", OLD, 60 * MINUTE, 59 * MINUTE)
    plant(sessions, "plugin-1", NEW, 58 * MINUTE)

    found = kind_of(asked(client, reads_coverage, model="tiny", at=ago(sessions, 57 * MINUTE)))

    assert [one["digest"] for one in found["versions"]] == [NEW.digest]


def test_reports_that_come_twice_late_or_out_of_order_make_one_period(sessions: Sessions) -> None:
    plant(sessions, "worker-1", OLD, 60 * MINUTE, 58 * MINUTE, 59 * MINUTE, 58 * MINUTE, 61 * MINUTE)

    with sessions() as session:
        [period] = session.scalars(select(ConfigurationPeriod))
    assert period.last_seen_at - period.began_at < dt.timedelta(minutes=3)


def test_a_worker_that_stops_says_so_and_is_not_in_force_any_more(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, 0)
    with sessions.begin() as session:
        write.end(session, "worker-1")

    assert not kind_of(asked(client, reads_coverage, model="tiny"))["known"]


def test_what_is_to_come_is_not_known(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    later = ago(sessions, -HOLDS.total_seconds() - HOUR)

    answer = client.get("/v1/configuration", headers=reads_coverage, params={"at": later})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "in_the_future"


def test_a_digest_gives_the_content_that_it_is_of(
    client: TestClient, sessions: Sessions, reads_coverage: Headers, database_url: str
) -> None:
    plant(sessions, "worker-1", OLD, HOUR)

    [found] = asked(client, reads_coverage, f"/versions/{OLD.digest}")["items"]

    assert (found["kind"], found["content"]) == ("worker", json.loads(OLD.content))
    with psycopg.connect(database_url) as connection:
        [(kept,)] = connection.execute("SELECT content::text FROM configuration_contents").fetchall()
    assert hashlib.sha256(kept.encode()).hexdigest() == OLD.digest
    unknown = client.get(f"/v1/configuration/versions/{'0' * 64}", headers=reads_coverage)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_configuration")


def test_a_version_that_was_named_before_it_was_told_is_told_later(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    with sessions.begin() as session:
        before = write.version_ids(session, {(OLD.kind, OLD.digest)})
    [unknown] = asked(client, reads_coverage, f"/versions/{OLD.digest}")["items"]

    plant(sessions, "worker-1", OLD, 0)

    assert unknown["content"] is None
    [known] = asked(client, reads_coverage, f"/versions/{OLD.digest}")["items"]
    assert known["content"] == json.loads(OLD.content)
    with sessions() as session:
        assert write.version_ids(session, {(OLD.kind, OLD.digest)}) == before


def test_a_content_that_is_too_long_has_its_digest_alone(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    long = configuration(Kind.CONCEPTS, {"concepts": "x" * MAX_CONTENT_BYTES})

    plant(sessions, "worker-1", long, 0)

    [version] = kind_of(asked(client, reads_coverage, model="tiny"), "concepts")["versions"]
    assert (version["digest"], version["content"]) == (long.digest, None)


def test_a_content_under_another_digest_is_refused(sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="another digest"):
        plant(sessions, "worker-1", OLD._replace(digest=NEW.digest), 0)


@pytest.mark.parametrize("table", ["configuration_versions", "configuration_contents"])
def test_not_even_the_owner_changes_what_was_kept(
    sessions: Sessions, database_url: str, table: str
) -> None:
    plant(sessions, "worker-1", OLD, 0)

    for statement in (
        f"UPDATE {table} SET created_at = now()",  # noqa: S608  # a name of ours
        f"DELETE FROM {table}",  # noqa: S608
        f"TRUNCATE {table} CASCADE",
    ):
        with (
            psycopg.connect(database_url) as connection,
            pytest.raises(psycopg.errors.RestrictViolation, match="never changes"),
        ):
            connection.execute(statement.encode())


def test_an_explanation_names_the_versions_that_it_came_about_by(
    client: TestClient, sessions: Sessions, headers_for: Callable[..., Headers]
) -> None:
    plugin = configuration(Kind.PLUGIN, {"layer": 20})
    with sessions.begin() as session:
        ids = write.version_ids(session, {(one.kind, one.digest) for one in (OLD, plugin)})
        audited = seed.add_model(session)
        named = seed.add_explanation(session, audited, position=0)
        named.configuration_id = ids[OLD.kind, OLD.digest]
        sample = session.scalars(select(Sample).where(Sample.id == named.sample_id)).one()
        sample.configuration_id = ids[plugin.kind, plugin.digest]
        seed.add_explanation(session, audited, position=1, captured_at=seed.START - dt.timedelta(hours=1))

    items = client.get("/v1/explanations", headers=headers_for("explanations:read")).json()["items"]

    assert [one["configuration"] for one in items] == [
        {"worker": OLD.digest, "plugin": plugin.digest},
        {"worker": None, "plugin": None},
    ]


def events(answer: Any) -> list[tuple[str, str, str]]:
    return [(one["event"], one["digest"], one["source"]) for one in answer["items"]]


def test_the_timeline_tells_which_version_came_and_which_left_newest_first(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, *minutes(60, 40))
    plant(sessions, "worker-2", OLD, *minutes(55, 45))  # no version comes or leaves by it
    plant(sessions, "worker-3", NEW, *minutes(42, 20))

    changes = asked(client, reads_coverage, "/changes", model="tiny")
    every = asked(client, reads_coverage, "/changes", model="tiny", every_process="true")

    assert events(changes) == [
        ("lost", NEW.digest, "worker-3"),
        ("lost", OLD.digest, "worker-1"),
        ("began", NEW.digest, "worker-3"),
        ("began", OLD.digest, "worker-1"),
    ]
    assert [(one["event"], one["source"], one["changes_versions"]) for one in every["items"]] == [
        ("lost", "worker-3", True),
        ("lost", "worker-1", True),
        ("began", "worker-3", True),
        ("lost", "worker-2", False),
        ("began", "worker-2", False),
        ("began", "worker-1", True),
    ]


def test_an_end_that_was_told_is_told_at_once_and_a_silence_only_once_it_is_one(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    plant(sessions, "worker-1", OLD, MINUTE)
    plant(sessions, "worker-2", NEW, MINUTE)
    with sessions.begin() as session:
        write.end(session, "worker-1")

    found = asked(client, reads_coverage, "/changes")["items"]

    assert [(one["event"], one["source"]) for one in found if one["event"] != "began"] == [
        ("ended", "worker-1")
    ]


def test_pages_meet_every_change_once_also_those_of_one_moment(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    for number in range(4):
        # Each began and was lost with one report.
        plant(sessions, f"worker-{number}", OLD, HOUR, model=f"tiny-{number}")
    found: list[tuple[str, str]] = []
    cursor: str | None = None
    for _ in range(4):
        parameters = {"limit": "3"} | ({} if cursor is None else {"cursor": cursor})
        page = asked(client, reads_coverage, "/changes", **parameters)
        found += [(one["event"], one["model"]) for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert sorted(found) == sorted((event, f"tiny-{n}") for n in range(4) for event in ("began", "lost"))


def test_each_filter_of_the_timeline_keeps_what_it_names(
    client: TestClient, sessions: Sessions, reads_coverage: Headers
) -> None:
    policy = configuration(Kind.CAPTURE_POLICY, {"request_rate": 0.5})
    plant(sessions, "worker-1", OLD, *minutes(60, 58))
    plant(sessions, "plugin-1", policy, *minutes(30, 28), model="another")

    for parameters, sources in (
        ({"model": "another"}, {"plugin-1"}),
        ({"kind": "worker"}, {"worker-1"}),
        ({"from": ago(sessions, 45 * MINUTE)}, {"plugin-1"}),
        ({"to": ago(sessions, 45 * MINUTE)}, {"worker-1"}),
        ({"model": "nobody"}, set()),
    ):
        found = asked(client, reads_coverage, "/changes", **parameters)["items"]
        assert {one["source"] for one in found} == sources, parameters
