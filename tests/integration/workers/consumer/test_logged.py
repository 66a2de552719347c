"""The log commits to what workers and triage store: each row as it is stored opens its entry."""

import json
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from service import verifying
from service.evidence import note
from service.evidence.payloads import Kind
from service.evidence.row import Row
from service.incidents.lifecycle import Reason, State
from service.sequencer.sequencer import Sequencer
from service.store import identity, triage
from service.store.access.tables import Action
from service.store.access.write import Entry, add_entry
from service.store.engine import create_engine, session_factory
from service.store.evidence.rows import list_rows
from service.store.evidence.tables import LogPending
from service.store.tables import ApiKey, Incident
from service.store.tenants import scope
from service.store.write.decoders import NewDecoder, register_decoder
from tests.integration.service import seed
from tests.support.waiting import wait_until
from tests.support.worker import Bench, make_record
from workers.nla.fake import FakeDecoder

TENANT = identity.tenant_id(identity.DEFAULT_TENANT)
OTHER = "acme"
NOT_OF_WORKERS = {
    Kind.ACCESS,
    Kind.TOMBSTONE,
    Kind.RETENTION_VERSION,
    Kind.LEGAL_HOLD,
    Kind.LEGAL_HOLD_LIFT,
    Kind.REMOVAL_DECISION,
    Kind.DELETION_CERTIFICATE,
}
DECODER = NewDecoder(
        model="m", d_model=8, name="m-l1", digest="d", layer=1, fve_baseline=0.5, shuffled_fve_p95=1e-7,
        calibration_n=9, card={"a": 1e-9, "\u00e9": [1, 2.0, None]},
)  # fmt: skip


def rows(session: Session) -> list[Row]:
    return [row for part in list_rows(session, TENANT) for row in part]


def pending(session: Session) -> list[tuple[str, bytes]]:
    batches = session.scalars(select(LogPending).order_by(LogPending.id))
    return [
        (batch.kind, batch.commitments[at : at + 32])
        for batch in batches
        for at in range(0, len(batch.commitments), 32)
    ]


def committed(found: Iterable[Row]) -> list[tuple[str, bytes]]:
    return [(row.kind, one) for row in found for one in row.commitments]


def add_key(session: Session) -> triage.Actor:
    key = ApiKey(id=uuid.uuid4(), name="reviewer", secret_sha256=bytes(32), scopes=[])
    session.add(key)
    return triage.Actor(key.id, key.name)


def confirm(session: Session, actor: triage.Actor) -> None:
    incident = session.scalars(select(Incident)).one()
    change = triage.Change(1, State.CONFIRMED, Reason.SEEN_IN_REQUEST, "it is", {"bombs": True})
    triage.apply(session, incident, change, actor)


def test_every_row_opens_its_entry_also_after_it_has_changed(
    make_bench: Callable[..., Bench], database_url: str
) -> None:
    bench = make_bench(FakeDecoder(text=lambda _: "talks of a bomb"))
    bench.add_samples(2, request_id="r")
    bench.drain()
    bench.add(*make_record(position=9, request_id="r", subject="5" * 32))  # the flag's counts change
    bench.drain()
    engine = create_engine(database_url)
    with session_factory(engine).begin() as session:
        actor = add_key(session)
        session.flush()
        confirm(session, actor)

    with session_factory(engine)() as session:
        found, waiting = rows(session), pending(session)
        batches = list(session.scalars(select(LogPending.kind)))
    engine.dispose()

    kinds = [row.kind for row in found]
    # The access log and holds are the service's, and tombstones are of what was erased.
    assert set(kinds) == set(Kind) - NOT_OF_WORKERS
    assert [kinds.count(kind) for kind in (Kind.EXPLANATION, Kind.FLAG, Kind.INCIDENT_EVENT)] == [3, 1, 2]
    assert sorted(committed(found)) == sorted(waiting)
    [flag] = [row for row in found if row.kind == Kind.FLAG]
    assert len(flag.trail) == 1
    # Of each transaction a row a kind, however much it stores.
    assert batches.count(Kind.EXPLANATION) == batches.count(Kind.FLAG) == 2


def test_a_reader_finds_nothing_wrong_with_what_two_tenants_stored(  # noqa: PLR0917  # fixtures
    make_bench: Callable[..., Bench],
    database_url: str,
    sequencer_url: str,
    reader_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = make_bench(FakeDecoder(text=lambda _: "talks of a bomb"))
    scores = {"a": 1e16, "\u00e9": 1e-7, "b": 2.0**70, "c": -0.0}
    for tenant in (OTHER, identity.DEFAULT_TENANT):  # the definition is stored with the other's rows
        bench.add_samples(2, request_id="r", tenant=tenant, scores=scores)
        bench.drain()
        bench.add(*make_record(position=9, request_id="r", tenant=tenant, subject="5" * 32))
        bench.drain()
    engine = create_engine(database_url)
    with session_factory(engine).begin() as session:
        actor = add_key(session)
    serving = create_engine(reader_url)
    with session_factory(serving).begin() as session:
        scope.enter(session, scope.Reach(identity.tenant_id(OTHER)))
        confirm(session, actor)
        add_entry(session, Entry(action=Action.EXPORT, operation="export", details={"rows": 2.0**60}))
    serving.dispose()
    checkpoints, public_key = tmp_path / "checkpoints", tmp_path / "key.pub"
    checkpoints.mkdir()
    signer = note.generate("subtext.example")
    public_key.write_text(signer.verifier.encode())
    sequencing = create_engine(sequencer_url)
    sequencer = Sequencer(session_factory(sequencing), signer, checkpoints)
    sequencer.sequence()
    sequencer.sign()
    sequencing.dispose()
    monkeypatch.setenv("SUBTEXT_DATABASE_URL", reader_url)
    arguments = ["--checkpoints", str(checkpoints), "--public-key", str(public_key)]

    status = verifying.run(arguments)

    told = capsys.readouterr().out.splitlines()
    reports = [json.loads(line) for line in told if line.startswith("{")]
    assert (status, [one["findings"] for one in reports]) == (0, [0, 0]), told
    # Each tenant's flag has grown once.
    assert [one["entries"] - one["rows_verified"] for one in reports] == [1, 1]
    assert all(one["entries"] > 0 and not one["rows_not_in_log"] for one in reports)
    for table in ("samples", "concept_matches"):  # a reader of the tenant's would not meet them any more
        with session_factory(engine).begin() as session:
            session.execute(text(f"UPDATE {table} SET tenant_id = '{uuid.uuid4()}'"))  # noqa: S608
        assert verifying.run(arguments) == 1
        assert "explanation" in capsys.readouterr().out
    engine.dispose()


def test_a_decoder_that_changes_has_an_entry_of_each_state(database_url: str) -> None:
    engine = create_engine(database_url)
    for one in (DECODER, DECODER, replace(DECODER, candidates=4), replace(DECODER, candidates=4)):
        with session_factory(engine).begin() as session:
            register_decoder(session, one)

    with session_factory(engine)() as session:
        [row], waiting = rows(session), pending(session)
    engine.dispose()

    assert len(row.trail) == 1
    assert [(row.kind, one) for one in row.commitments] == waiting


def test_a_decoder_that_two_workers_register_at_once_opens_its_entry(database_url: str) -> None:
    engine = create_engine(database_url)
    sessions = session_factory(engine)

    def register(session: Session, candidates: int) -> None:
        register_decoder(session, replace(DECODER, candidates=candidates))

    def register_second() -> None:
        with sessions.begin() as session:
            register(session, 4)

    def is_waiting() -> bool:
        with sessions() as session:
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
            return bool(session.scalar(text(f"{blocked} AND datname = current_database()")))

    with sessions.begin() as session:
        register_decoder(session, replace(DECODER, digest="before", layer=2))  # the model is there
    second = threading.Thread(target=register_second)
    with sessions.begin() as session:
        register(session, 1)
        second.start()
        wait_until("the second waits for the first", is_waiting, 60)
    second.join(60)

    with sessions() as session:
        found, waiting = rows(session), pending(session)
    engine.dispose()
    assert sorted(committed(found)) == sorted(waiting)
    assert sorted(row.payload["candidates"] for row in found) == [1, 4]


def test_a_row_of_before_the_log_has_no_entry(database_url: str) -> None:
    engine = create_engine(database_url)
    with session_factory(engine).begin() as session:
        seed.add_explanation(session, seed.add_model(session))

    with session_factory(engine)() as session:
        found, waiting = rows(session), pending(session)
    engine.dispose()

    assert {row.kind for row in found} == {Kind.DECODER, Kind.EXPLANATION}
    assert (committed(found), waiting) == ([], [])
