"""Rows of two tenants share a stream and a batch, and nothing else."""

import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import func, select

from service.store import identity
from service.store.tables import (
    CanaryFlag,
    CanaryReading,
    CoverageMinute,
    Decoder,
    Explanation,
    Flag,
    Incident,
    Model,
    RequestName,
    Sample,
)
from service.store.tenants import register, row_security
from service.store.tenants.sessions import session_of
from service.store.tenants.tables import Tenant
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Hop
from tests.support.waiting import wait_until
from tests.support.worker import MODEL, Bench, make_record
from workers.nla.fake import FakeDecoder

CAPTURE = "5eed" * 8
NONCE = "0f" * 16
OF_A_ROW = (Sample, Explanation, RequestName, Flag, Incident)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    one = make_bench(FakeDecoder(text=lambda _: "talks of a bomb"), batch_entries=64)
    one.loop.step()  # makes the group, so that the next one takes all that is there
    return one


def held(bench: Bench, tenant: str, table: Any) -> int:
    """How many rows of the table are this tenant's."""
    mine = table.tenant_id == identity.tenant_id(tenant)
    with session_of(bench.sessions, tenant) as session:
        return session.execute(select(func.count()).select_from(table).where(mine)).scalar_one()


def counted(bench: Bench, tenant: str, hop: Hop = Hop.WORKER) -> dict[str, int]:
    query = (
        select(CoverageMinute.counter, func.sum(CoverageMinute.count))
        .where(CoverageMinute.tenant_id == identity.tenant_id(tenant), CoverageMinute.hop == hop)
        .group_by(CoverageMinute.counter)
    )
    with session_of(bench.sessions, tenant) as session:
        return {counter: int(total) for counter, total in session.execute(query)}


def add(bench: Bench, tenant: str, positions: range = range(3), **changes: Any) -> None:
    fields = {"capture_id": CAPTURE, "request_id": "r", "tenant": tenant} | changes
    for position in positions:
        bench.add(*make_record(position=position, **fields))


def test_rows_of_two_tenants_in_one_batch_are_stored_flagged_and_counted_apart(bench: Bench) -> None:
    add(bench, "acme")
    add(bench, "bolt", range(2))  # the same capture under the same name, as if it were acme's
    bench.add(b"garbage", b"")

    assert bench.loop.step() == 6

    for tenant, rows in (("acme", 3), ("bolt", 2)):
        assert [held(bench, tenant, table) for table in OF_A_ROW] == [rows, rows, 1, 1, 1]
        assert counted(bench, tenant) == {"rows_consumed": rows, "rows_decoded": rows}
    assert [held(bench, "default", table) for table in OF_A_ROW] == [0] * len(OF_A_ROW)
    assert sum(counted(bench, "default").values()) == 2  # garbage is consumed and dead-lettered
    with bench.sessions() as session:
        flags = {flag.tenant_id: flag.positions_matched for flag in session.scalars(select(Flag))}
    assert flags == {identity.tenant_id("acme"): 3, identity.tenant_id("bolt"): 2}


def test_a_capture_that_another_tenant_repeats_first_takes_nothing_from_it(bench: Bench) -> None:
    add(bench, "bolt")
    bench.loop.step()
    add(bench, "acme")
    add(bench, "bolt")

    bench.loop.step()

    for tenant in ("acme", "bolt"):
        assert [held(bench, tenant, table) for table in OF_A_ROW] == [3, 3, 1, 1, 1]
    assert counted(bench, "acme") == {"rows_consumed": 3, "rows_decoded": 3}
    assert counted(bench, "bolt")["rows_decoded"] == 3


def test_a_tenants_model_and_decoder_are_his_own_and_are_there_with_his_first_row(bench: Bench) -> None:
    assert held(bench, "acme", Model) == 0
    add(bench, "acme", range(1))
    bench.loop.step()

    with session_of(bench.sessions, "acme") as session:
        names = session.scalars(select(Tenant.name).where(Tenant.name == "acme")).all()
        model = session.get_one(Model, identity.model_id(MODEL, "acme"))
    assert (names, model.name, model.tenant_id) == (["acme"], MODEL, identity.tenant_id("acme"))
    assert held(bench, "acme", Decoder) == held(bench, "default", Decoder) == 1


def test_another_worker_looks_after_the_tenants_that_were_there_before_it(
    bench: Bench, make_bench: Callable[..., Bench], database_url: str
) -> None:
    add(bench, "acme")
    bench.loop.step()
    with psycopg.connect(database_url) as owner:  # as if the incident could not be written with its flag
        owner.execute("SELECT set_config('subtext.tenant', %s, true)", [str(identity.tenant_id("acme"))])
        for table in ("webhook_messages", "incident_events", "incidents"):
            owner.execute(f"DELETE FROM {table}")  # noqa: S608  # no input
    assert held(bench, "acme", Incident) == 0

    assert make_bench().parts.incident_repair.step() == 1
    assert held(bench, "acme", Incident) == 1


def test_canaries_of_two_tenants_are_kept_apart(bench: Bench) -> None:
    for tenant, positions in (("acme", range(3)), ("bolt", range(2))):
        add(bench, tenant, positions, stratum="canary", canary=NONCE)
    bench.loop.step()

    for tenant, rows in (("acme", 3), ("bolt", 2)):
        assert [held(bench, tenant, table) for table in (CanaryReading, CanaryFlag, Flag)] == [rows, 1, 0]


def test_counts_of_two_tenants_of_one_sidecar_are_kept_apart(bench: Bench) -> None:
    count = record.CoverageCount(
        v=record.VERSION,
        source="sidecar-1",
        hop=Hop.SIDECAR,
        model=MODEL,
        stratum="uniform",
        minute=29_000_000,
        counts={"rows_received": 5},
    )
    for tenant, value in (("acme", 5), ("bolt", 7), ("acme", 4)):
        sent = msgspec.structs.replace(count, tenant=tenant, counts={"rows_received": value})
        bench.client.xadd(streams.COVERAGE_STREAM, {streams.FIELD_HEADER: record.encode_coverage(sent)})
    wait_until(
        "all counts are stored",
        lambda: not bench.client.xlen(streams.COVERAGE_STREAM),
        meanwhile=lambda: bench.parts.intake.step(block_ms=10),
    )

    assert counted(bench, "acme", Hop.SIDECAR) == {"rows_received": 5}
    assert counted(bench, "bolt", Hop.SIDECAR) == {"rows_received": 7}
    assert counted(bench, "default", Hop.SIDECAR) == {}


def test_one_tenant_too_many_is_dead_lettered_and_stops_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(bench, "acme", range(1))
    bench.loop.step()
    monkeypatch.setattr(register, "MOST", 2)  # the default one and acme
    add(bench, "bolt", range(2))
    add(bench, "acme", range(1, 2), request_id="s", capture_id=uuid.uuid4().hex)

    bench.loop.step()

    letters = bench.dead_letters()
    assert {letter[streams.FIELD_REASON] for letter in letters} == {b"too_many_tenants"}
    assert len(letters) == 2
    assert b"subtext tenant create bolt" in letters[0][streams.FIELD_ERROR]
    assert (held(bench, "acme", Sample), held(bench, "bolt", Sample)) == (2, 0)
    with bench.sessions() as session:
        assert "bolt" not in register.list_names(session)


def test_no_tenant_is_made_where_every_key_would_read_his_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_security, "list_open", lambda _: ["samples"])
    add(bench, "acme", range(1))
    add(bench, "default", range(1))

    bench.loop.step()

    [letter] = bench.dead_letters()
    assert letter[streams.FIELD_REASON] == b"store_refused"
    assert b"table samples has no row-level security" in letter[streams.FIELD_ERROR]
    assert (held(bench, "acme", Sample), held(bench, "default", Sample)) == (0, 1)
