"""What a worker finds opens one incident a capture, whoever finds it and however often it is delivered."""

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from service.incidents.lifecycle import ANOMALY_SEVERITY, EventKind, FindingKind, State
from service.store.tables import Explanation, Flag, Incident, IncidentEvent, WebhookMessage
from service.store.tenants import scope
from service.store.write import incident_repair, incidents
from service.store.write.evidence import Finding
from service.store.write.flags import Subject
from service.store.write.incident_repair import Unrecorded
from tests.support.worker import MODEL, Bench, drain_together, make_record
from workers.nla.fake import FakeDecoder

REQUESTS = 12


def bombs(_: NDArray[np.float32]) -> str:
    return "talks of a bomb"


def events_of(session: Session) -> list[IncidentEvent]:
    return list(session.scalars(select(IncidentEvent).order_by(IncidentEvent.version)))


def anomaly(session: Session) -> tuple[Subject, Finding]:
    flag = session.scalars(select(Flag)).one()
    subject = Subject(flag.model_id, flag.decoder_id, flag.capture_id, flag.request_id, flag.layer)
    span = (flag.first_captured_at, flag.last_captured_at)
    return subject, Finding(FindingKind.ANOMALY, None, ANOMALY_SEVERITY, *span, {"p_value": 0.001})


def test_two_workers_at_once_open_one_incident_a_capture(make_bench: Callable[..., Bench]) -> None:
    benches = [make_bench(FakeDecoder(text=bombs)) for _ in range(2)]
    for position in range(3):
        for number in range(REQUESTS):
            benches[0].add(*make_record(position=position, request_id=f"r{number}"))

    drain_together(benches)

    with benches[0].sessions() as session:
        found = session.scalars(select(Incident)).all()
        events = events_of(session)
        messages = session.scalars(select(WebhookMessage.event_id)).all()
    assert sorted(incident.request_id for incident in found) == sorted(f"r{n}" for n in range(REQUESTS))
    assert {(row.severity, row.state, row.version) for row in found} == {("critical", State.OPEN, 1)}
    assert [(event.kind, event.to_state) for event in events] == [(EventKind.OPENED, State.OPEN)] * REQUESTS
    assert sorted(messages) == sorted(event.id for event in events)
    labels = {"model": MODEL, "kind": "opened", "severity": "critical"}
    assert sum(bench.metric("subtext_incident_events_total", **labels) for bench in benches) == REQUESTS


def test_further_positions_widen_an_incident_and_are_no_event(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    for position in range(2):
        bench.add(*make_record(position=position, request_id="r", captured_at=1_764_000_000.0 + position))
    bench.drain()
    bench.add(*make_record(position=9, request_id="r", captured_at=1_764_000_009.0))
    bench.drain()

    with bench.sessions() as session:
        incident = session.scalars(select(Incident)).one()
        [event] = events_of(session)
    assert (incident.last_captured_at - incident.first_captured_at).total_seconds() == 9
    assert incident.version == event.version == 1
    [finding] = event.findings
    assert (finding["kind"], finding["concept"], finding["positions_matched"]) == ("flag", "bombs", 2)
    assert finding["false_positive_rate"] is None


def test_a_new_finding_opens_a_dismissed_incident_again_and_an_old_one_does_not(
    make_bench: Callable[..., Bench], database_url: str
) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(2, request_id="r")
    bench.drain()
    with psycopg.connect(database_url) as owner:
        owner.execute(
            "UPDATE incidents SET state = 'dismissed', version = 2, labels = '{\"bombs\": false}'"
        )
    bench.add(*make_record(position=5, request_id="r"))
    bench.drain()
    with bench.sessions() as session:
        assert session.scalars(select(Incident.state)).one() == State.DISMISSED

    for _ in range(2):  # as with a redelivery
        with bench.sessions.begin() as session:
            subject, finding = anomaly(session)
            changes = incidents.record_findings(session, subject, [finding], anomaly_p_value=0.01)

    assert changes == []
    with bench.sessions() as session:
        incident = session.scalars(select(Incident)).one()
        last = events_of(session)[-1]
    assert (incident.state, incident.version, incident.labels) == (State.OPEN, 3, {})
    assert (last.kind, last.from_state, last.to_state) == (EventKind.REOPENED, State.DISMISSED, State.OPEN)
    assert (last.key_id, last.reason, incident.severity) == (None, None, "critical")


def test_an_anomaly_on_a_flagged_capture_adds_to_its_incident(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(2, request_id="r")
    bench.drain()

    with bench.sessions.begin() as session:
        subject, finding = anomaly(session)
        [change] = incidents.record_findings(session, subject, [finding], anomaly_p_value=0.01)

    assert (change.kind, change.severity) == (EventKind.EVIDENCE, "critical")


def test_a_flag_that_is_rolled_back_takes_its_incident_with_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(2, request_id="r")
    bench.drain()

    with bench.sessions() as session:
        subject, finding = anomaly(session)
        incidents.record_findings(session, subject, [finding], anomaly_p_value=0.01)
        session.rollback()

    with bench.sessions() as session:
        assert len(events_of(session)) == len(session.scalars(select(WebhookMessage)).all()) == 1


def stored(session: Session) -> tuple[int, int]:
    """Return the numbers of explanations and of flags."""
    return len(session.scalars(select(Explanation.id)).all()), len(session.scalars(select(Flag.id)).all())


def test_incidents_that_cannot_be_written_cost_no_evidence_and_are_written_later(
    make_bench: Callable[..., Bench], database_url: str
) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    with psycopg.connect(database_url) as owner:
        owner.execute("REVOKE INSERT ON incidents FROM subtext_writer")
    bench.add_samples(2, request_id="r")
    bench.drain()

    with bench.sessions() as session:
        assert stored(session) == (2, 1)
        assert session.scalars(select(Incident)).all() == []
    assert bench.dead_letters() == []
    failures = bench.metric("subtext_incident_failures_total", model=MODEL)
    assert failures >= 1
    assert bench.parts.incident_repair.step() == 0
    assert bench.metric("subtext_incident_failures_total", model=MODEL) == failures + 1

    with psycopg.connect(database_url) as owner:
        owner.execute("GRANT INSERT ON incidents TO subtext_writer")
    assert bench.parts.incident_repair.step() == 1
    assert bench.parts.incident_repair.step() == 0

    with bench.sessions() as session:
        incident = session.scalars(select(Incident)).one()
        [event] = events_of(session)
        assert session.scalars(select(WebhookMessage.event_id)).all() == [event.id]
    assert (incident.request_id, incident.state, incident.severity) == ("r", State.OPEN, "critical")
    assert [(found["concept"], found["positions_matched"]) for found in event.findings] == [("bombs", 2)]


TWO_CONCEPTS = """
version: 1
concepts:
  - {name: bombs, description: bombs, severity: critical, matchers: [{regex: bomb}]}
  - {name: poisons, description: poisons, severity: critical, matchers: [{regex: poison}]}
"""


def poisons_from_the_third_on(vector: NDArray[np.float32]) -> str:
    return "talks of a poison" if vector[1] >= 3 else "talks of a bomb"


def test_rows_that_no_worker_wrote_keep_no_finding_from_its_incident(
    make_bench: Callable[..., Bench], concepts_file: Path, database_url: str, reader_url: str
) -> None:
    concepts_file.write_text(TWO_CONCEPTS)
    bench = make_bench(FakeDecoder(text=poisons_from_the_third_on))
    bench.add_samples(2, request_id="r")
    bench.drain()
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE incident_events SET findings = findings || '[1, {}, [null]]'")
    with psycopg.connect(reader_url) as service:
        service.execute("SELECT set_config(%s, %s, true)", [scope.SETTING, str(scope.DEFAULT_ID)])
        service.execute(
            "INSERT INTO incident_events (id, incident_id, version, kind, to_state, severity)"
            " SELECT gen_random_uuid(), id, 2, 'triaged', 'open', 'info' FROM incidents"
        )
    bench.add_samples(4, request_id="r")
    bench.drain()

    with bench.sessions() as session:
        assert stored(session) == (4, 2)
        *_, last = events_of(session)
        incident = session.scalars(select(Incident)).one()
    assert (last.version, [found["concept"] for found in last.findings]) == (3, ["poisons"])
    assert incident.version == 3
    assert bench.metric("subtext_incident_failures_total", model=MODEL) == 0


def test_a_flag_that_an_incident_cannot_take_is_told_once_it_can(
    make_bench: Callable[..., Bench], concepts_file: Path, database_url: str, reader_url: str
) -> None:
    concepts_file.write_text(TWO_CONCEPTS)
    bench = make_bench(FakeDecoder(text=poisons_from_the_third_on))
    bench.add_samples(2, request_id="r")
    bench.drain()
    with psycopg.connect(reader_url) as service:  # no version is above this one
        service.execute("SELECT set_config(%s, %s, true)", (scope.SETTING, str(scope.DEFAULT_ID)))
        service.execute("UPDATE incidents SET version = 2147483647")
    bench.add_samples(4, request_id="r")
    bench.drain()
    with bench.sessions() as session:
        assert stored(session) == (4, 2)
        assert len(events_of(session)) == 1
    assert bench.dead_letters() == []

    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE incidents SET version = 1")
    assert bench.parts.incident_repair.step() == 1

    with bench.sessions() as session:
        told = [found["concept"] for event in events_of(session) for found in event.findings]
    assert told == ["bombs", "poisons"]


def at_captures(session: Session, count: int) -> list[Unrecorded]:
    subject, finding = anomaly(session)
    return [Unrecorded(subject._replace(capture_id=uuid.uuid4()), [finding]) for _ in range(count)]


def test_locked_incidents_are_waited_for_once_in_a_transaction_and_not_long(
    make_bench: Callable[..., Bench], database_url: str
) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(2, request_id="r")
    bench.drain()

    with psycopg.connect(database_url) as owner, bench.sessions.begin() as session:
        found = at_captures(session, 16)
        # Whoever waited as long as that would see no end: the owner holds the lock meanwhile.
        session.execute(text("SET LOCAL lock_timeout = '1h'"))
        session.execute(text("SET LOCAL statement_timeout = '2h'"))
        owner.execute("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")
        tried: list[str] = []
        event.listen(session.connection(), "before_cursor_execute", lambda *args: tried.append(args[2]))
        recorded = incident_repair.try_to_record(session, found, anomaly_p_value=0.01)
        timeout = session.execute(text("SHOW lock_timeout")).scalar_one()

    assert {(tuple(one.changes), one.error) for one in recorded} == {((), "OperationalError")}
    assert len(recorded) == 16
    assert len([statement for statement in tried if "INSERT INTO incidents" in statement]) == 1
    assert timeout == "1h"


def test_incidents_that_are_written_leave_the_transaction_the_lock_timeout_that_it_had(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(FakeDecoder(text=bombs))
    bench.add_samples(2, request_id="r")
    bench.drain()

    with bench.sessions.begin() as session:
        before = session.execute(text("SHOW lock_timeout")).scalar_one()
        recorded = incident_repair.try_to_record(session, at_captures(session, 2), anomaly_p_value=0.01)
        after = session.execute(text("SHOW lock_timeout")).scalar_one()

    assert [one.error for one in recorded] == [None, None]
    assert after == before


def test_incidents_that_can_never_be_written_keep_no_older_one_from_being_written(
    make_bench: Callable[..., Bench], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident_repair, "REPAIRED_AT_ONCE", 2)
    bench = make_bench(FakeDecoder(text=bombs))
    with psycopg.connect(database_url) as owner:
        owner.execute("REVOKE INSERT ON incidents FROM subtext_writer")
    for number in range(7):
        bench.add_samples(2, request_id=f"r{number}")
    bench.drain()
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE flags SET created_at = created_at - interval '1 min' WHERE request_id < 'r4'")
        owner.execute("ALTER TABLE incidents ADD CHECK (request_id < 'r4')")
        owner.execute("GRANT INSERT ON incidents TO subtext_writer")

    stop = threading.Event()
    stop.set()
    assert bench.parts.incident_repair.step(stop=stop) == 0
    assert bench.parts.incident_repair.step() == 4

    with bench.sessions() as session:
        written = session.scalars(select(Incident.request_id).order_by(Incident.request_id)).all()
    assert written == ["r0", "r1", "r2", "r3"]
