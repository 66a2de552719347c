"""Retention runs: what goes and what stays, kills, and the certificate that an auditor checks."""

import base64
import datetime as dt
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import merkle, note
from service.evidence.entry import Leaf, commit
from service.incident_metrics import IncidentMetrics
from service.retention.pace import Pace
from service.retention.run import run
from service.store.engine import session_factory
from service.store.retention.tables import RetentionRun
from service.store.tables import Explanation, Flag, Incident, RequestName, Sample
from service.store.tenants import scope
from service.watch.incident_watch import IncidentWatch
from tests.integration.service import seed
from tests.support import ROOT
from tests.support.erasing import SIGNER, Log, plant

Headers = dict[str, str]
Sessions = sessionmaker[Session]
NOW = dt.datetime.now(dt.UTC)
OLD, NEW = NOW - dt.timedelta(days=40), NOW - dt.timedelta(days=20)
FAST = Pace(rows=2, pause_seconds=0.0)


@pytest.fixture
def log(sessions: Sessions, tmp_path: Path) -> Log:
    return Log(sessions, tmp_path)


def store(sessions: Sessions, *requests: tuple[str, dt.datetime], days: int | None = 30) -> None:
    """Store requests of three positions each, and keep the tenant's rows for so many days."""
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        for name, at in requests:
            plant(session, name, at=at)
        if days is not None:
            seed.add_period(session, days)


def left(sessions: Sessions) -> set[str]:
    with sessions() as session:
        found = set(session.scalars(select(Sample.request_id)))
        for table in (Flag, Incident, RequestName):
            assert set(session.scalars(select(table.request_id))) == found
        return found


def test_what_is_beyond_its_period_goes_but_for_what_is_held(sessions: Sessions, log: Log) -> None:
    store(sessions, ("old", OLD), ("held", OLD), ("new", NEW))
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        hold = seed.add_hold(session, request="held")
    log.sign()

    [outcome] = run(sessions, FAST)
    log.sign()

    assert left(sessions) == {"held", "new"}
    assert (outcome.explanations, outcome.is_finished, outcome.model) == (3, True, "m")
    assert log.report().findings == []
    with sessions() as session:
        done = session.get_one(RetentionRun, outcome.run)
        assert (done.first_captured_at, done.last_captured_at) == (OLD, OLD + dt.timedelta(milliseconds=2))
        assert hold is not None
    # A second run has nothing to do, and certifies nothing.
    [again] = run(sessions, FAST)
    assert (again.explanations, again.certificate) == (0, None)


def test_without_a_period_and_before_the_log_has_them_nothing_goes(sessions: Sessions, log: Log) -> None:
    store(sessions, ("old", OLD), days=None)
    assert run(sessions, FAST) == []
    with sessions.begin() as session:
        seed.add_period(session, 30)

    [waiting] = run(sessions, FAST)
    assert (waiting.explanations, left(sessions)) == (0, {"old"})
    log.sign()
    [done] = run(sessions, FAST)

    assert (done.explanations, left(sessions)) == (3, set())


def test_a_longer_period_ends_a_run_that_was_interrupted(sessions: Sessions, log: Log) -> None:
    store(sessions, *((f"r{number}", OLD) for number in range(3)))
    log.sign()
    asked = iter([False, False, True])
    [interrupted] = run(sessions, FAST, stop=lambda: next(asked))
    with sessions.begin() as session:
        seed.add_period(session, 365)

    [after] = run(sessions, FAST)

    assert (interrupted.is_finished, 0 < interrupted.explanations < 9) == (False, True)
    assert (after.explanations, after.run == interrupted.run) == (0, False)
    with sessions() as session:
        assert (
            session.scalars(select(func.count()).select_from(Explanation)).one()
            == 9 - interrupted.explanations
        )
        assert session.get_one(RetentionRun, interrupted.run).finished_at is not None


def test_a_run_that_was_killed_goes_on_and_its_counts_are_exact(
    sessions: Sessions, log: Log, database_url: str
) -> None:
    store(sessions, *((f"r{number}", OLD) for number in range(8)))
    log.sign()
    program = (  # which pauses until it is killed
        "import sys\n"
        "from service.retention.pace import Pace\n"
        "from service.retention.run import run\n"
        "from service.store.engine import create_engine, session_factory\n"
        "run(session_factory(create_engine(sys.argv[1])), Pace(rows=2, pause_seconds=600))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'sidecar'}"}

    def removed() -> int:
        with sessions() as session:
            return 24 - session.scalars(select(func.count()).select_from(Explanation)).one()

    for _ in range(2):
        before = removed()
        process = subprocess.Popen([sys.executable, "-c", program, database_url], env=environment)
        while removed() == before:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    [outcome] = run(sessions, FAST)
    log.sign()

    assert left(sessions) == set()
    assert outcome.explanations == 24
    with sessions() as session:
        assert session.scalars(select(func.count()).select_from(RetentionRun)).one() == 1
    assert log.report().findings == []


def test_a_row_that_somebody_holds_keeps_the_run_unfinished_and_nobody_waiting(
    sessions: Sessions, log: Log
) -> None:
    store(sessions, ("old", OLD))
    log.sign()
    impatient = Pace(rows=2, pause_seconds=0.0, lock_seconds=0.05, tries=2)
    with sessions.begin() as session:
        session.execute(update(Explanation).values(margin=Explanation.margin))

        [outcome] = run(sessions, impatient)

    assert (outcome.is_finished, left(sessions)) == (False, {"old"})
    [done] = run(sessions, FAST)
    assert (done.run, left(sessions)) == (outcome.run, set())


def test_a_certificate_is_checked_by_the_public_key_alone(
    client: TestClient, sessions: Sessions, log: Log, admin: Headers
) -> None:
    store(sessions, ("old", OLD), ("held", OLD))
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        hold = seed.add_hold(session, request="held")
    log.sign()
    [outcome] = run(sessions, FAST)
    path = f"/v1/retention/certificates/{outcome.certificate}"
    before = client.get(path, headers=admin).json()
    log.sign()

    told = client.get(path, headers=admin).json()
    listed = client.get("/v1/retention/certificates", headers=admin).json()["items"]

    day = {"from": OLD.isoformat(), "to": (OLD + dt.timedelta(hours=1)).isoformat()}
    stated = client.get("/v1/coverage/statement", params=day, headers=admin).json()

    assert stated["legal_holds"] == [str(hold)]
    [removal] = stated["removals"]
    assert (removal["run"], removal["model"], removal["explanations"]) == (str(outcome.run), "m", 3)
    assert (before["proof"], [one["id"] for one in listed]) == (None, [str(outcome.certificate)])
    document = told["payload"]["document"]
    assert (told["document"], told["model"], told["authority"]) == (document, "m", str(outcome.run))
    assert (document["retention_class"], document["period_days"]) == ("custom", 30)
    removed = document["removed"]
    assert (removed["explanations"], removed["samples"], removed["flags"], removed["incidents"]) == (
        3,
        3,
        1,
        1,
    )
    assert (document["explanations_held"], document["holds_respected"]) == (3, [str(hold)])
    assert document["tombstones"]["count"] == 1
    # From here on by what was answered and the public key.
    checkpoint = note.read_checkpoint(SIGNER.verifier.open(told["proof"]["checkpoint"]))
    entry = told["proof"]["entry"]
    commitment = commit(bytes.fromhex(told["salt"]), told["payload"])
    leaf = Leaf(entry["seq"], "deletion_certificate", dt.datetime.fromisoformat(entry["at"]), commitment)
    merkle.check_inclusion(
        leaf.hash(),
        leaf.seq,
        checkpoint.size,
        [base64.b64decode(one) for one in told["proof"]["inclusion_proof"]],
        checkpoint.root,
    )
    changed = told["payload"] | {"document": document | {"period_days": 31}}
    assert commit(bytes.fromhex(told["salt"]), changed) != commitment


def test_an_unknown_certificate_is_a_404(client: TestClient, admin: Headers) -> None:
    answer = client.get(f"/v1/retention/certificates/{uuid.uuid4()}", headers=admin)

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_certificate")


def test_what_is_beyond_its_period_is_measured_until_a_run_has_removed_it(
    sessions: Sessions, log: Log, reader: Engine
) -> None:
    store(sessions, ("old", OLD), ("held", OLD - dt.timedelta(days=9)), ("new", NEW))
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        seed.add_hold(session, request="held")
    log.sign()
    registry = CollectorRegistry()
    watch = IncidentWatch(session_factory(reader), IncidentMetrics(registry), {})

    def told(name: str) -> float | None:
        return registry.get_sample_value(f"subtext_retention_{name}")

    at = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)  # behind the period's beginning
    watch.look(at)
    beyond = at - dt.timedelta(days=30) - OLD
    assert told("overdue_seconds") == pytest.approx(beyond.total_seconds(), abs=1)
    assert (told("last_finished_timestamp_seconds"), told("unfinished_runs")) == (0, 0)
    run(sessions, FAST, stop=iter([False, True]).__next__)
    watch.look(at + dt.timedelta(hours=1))
    assert (told("last_finished_timestamp_seconds"), told("unfinished_runs")) == (0, 1)
    run(sessions, FAST)
    watch.look(at + dt.timedelta(hours=2))

    assert (told("overdue_seconds"), told("unfinished_runs")) == (0, 0)
    assert (told("last_finished_timestamp_seconds") or 0) > at.timestamp() - 600
