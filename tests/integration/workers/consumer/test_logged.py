"""The log commits to what workers and triage store: each row as it is stored opens its entry."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.evidence.payloads import Kind
from service.evidence.row import Row
from service.incidents.lifecycle import Reason, State
from service.store import identity, triage
from service.store.engine import create_engine, session_factory
from service.store.evidence.rows import list_rows
from service.store.evidence.tables import LogPending
from service.store.tables import ApiKey, Incident
from service.store.write.decoders import NewDecoder, register_decoder
from tests.integration.service import seed
from tests.support.worker import Bench, make_record
from workers.nla.fake import FakeDecoder

TENANT = identity.tenant_id(identity.DEFAULT_TENANT)


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


def confirm(session: Session) -> None:
    key = ApiKey(id=uuid.uuid4(), name="reviewer", secret_sha256=bytes(32), scopes=[])
    session.add(key)
    session.flush()
    incident = session.scalars(select(Incident)).one()
    change = triage.Change(1, State.CONFIRMED, Reason.SEEN_IN_REQUEST, "it is", {"bombs": True})
    triage.apply(session, incident, change, triage.Actor(key.id, key.name))


def test_every_row_opens_its_entry_also_after_it_has_changed(
    make_bench: Callable[..., Bench], database_url: str
) -> None:
    bench = make_bench(FakeDecoder(text=lambda _: "talks of a bomb"))
    bench.add_samples(2, request_id="r")
    bench.drain()
    bench.add(*make_record(position=9, request_id="r"))  # the flag's counts change
    bench.drain()
    engine = create_engine(database_url)
    with session_factory(engine).begin() as session:
        confirm(session)

    with session_factory(engine)() as session:
        found, waiting = rows(session), pending(session)
        batches = list(session.scalars(select(LogPending.kind)))
    engine.dispose()

    kinds = [row.kind for row in found]
    assert set(kinds) == set(Kind)
    assert [kinds.count(kind) for kind in (Kind.EXPLANATION, Kind.FLAG, Kind.INCIDENT_EVENT)] == [3, 1, 2]
    assert sorted(committed(found)) == sorted(waiting)
    [flag] = [row for row in found if row.kind == Kind.FLAG]
    assert len(flag.trail) == 1
    # Of each transaction a row a kind, however much it stores.
    assert batches.count(Kind.EXPLANATION) == batches.count(Kind.FLAG) == 2


def test_a_decoder_that_changes_has_an_entry_of_each_state(database_url: str) -> None:
    engine = create_engine(database_url)
    decoder = NewDecoder(
        model="m", d_model=8, name="m-l1", digest="d", layer=1, fve_baseline=0.5, shuffled_fve_p95=1e-7,
        calibration_n=9, card={"a": 1e-9, "\u00e9": [1, 2.0, None]},
    )  # fmt: skip
    for one in (decoder, decoder, replace(decoder, candidates=4), replace(decoder, candidates=4)):
        with session_factory(engine).begin() as session:
            register_decoder(session, one)

    with session_factory(engine)() as session:
        [row], waiting = rows(session), pending(session)
    engine.dispose()

    assert len(row.trail) == 1
    assert [(row.kind, one) for one in row.commitments] == waiting


def test_a_row_of_before_the_log_has_no_entry(database_url: str) -> None:
    engine = create_engine(database_url)
    with session_factory(engine).begin() as session:
        seed.add_explanation(session, seed.add_model(session))

    with session_factory(engine)() as session:
        found, waiting = rows(session), pending(session)
    engine.dispose()

    assert {row.kind for row in found} == {Kind.DECODER, Kind.EXPLANATION}
    assert (committed(found), waiting) == ([], [])
