"""Whose rows are whose: columns, keys that gained a tenant, and what a migration does to rows of before."""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service.store import identity, migrate
from service.store.schema import METADATA
from service.store.tables import Decoder, Model
from service.store.tenants import scope
from service.store.tenants.tables import Tenant
from service.store.write import coverage, decoders
from tests.integration.service import seed

ACME = identity.tenant_id("acme")
OF_ALL = {"alembic_version", "tenants", "concept_versions"}
"""What belongs to no tenant: `concept_versions` is kept by content and read through `model_concepts`."""
MINUTE = dt.datetime(2026, 11, 28, 5, 0, tzinfo=dt.UTC)


def rows(engine: Engine, query: str, **values: Any) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.execute(text(query), values).all()


@pytest.fixture
def acme(sessions: sessionmaker[Session]) -> uuid.UUID:
    """A second tenant."""
    with sessions.begin() as session:
        session.add(Tenant(id=ACME, name="acme"))
    return ACME


def test_every_table_of_data_says_whose_a_row_is(engine: Engine) -> None:
    found = rows(
        engine,
        "SELECT table_name, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'tenant_id' AND data_type = 'uuid'",
    )
    tables = rows(engine, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")

    assert {row.table_name for row in found} == {row.tablename for row in tables} - OF_ALL
    assert {row.is_nullable for row in found} == {"NO"}
    assert len({row.column_default for row in found}) == 1
    assert set(METADATA.tables) <= {row.tablename for row in tables}


def test_rows_of_before_are_the_default_tenants_and_no_table_is_written_anew(
    engine: Engine, database_url: str
) -> None:
    files = (
        "SELECT replace(relname, '_before', '') AS relname, pg_relation_filenode(oid) FROM pg_class"
        " WHERE relname IN ('samples', 'samples_before', 'flags') AND relkind = 'r' ORDER BY 1"
    )
    migrate.downgrade(database_url, "0017")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO models (id, name, d_model) VALUES (gen_random_uuid(), 'tiny', 8);"
            " INSERT INTO coverage_minutes (minute, source, hop, model, stratum, counter, count)"
            " VALUES ('2026-11-23 05:00Z', 's', 'plugin', 'tiny', 'uniform', 'rows_sampled', 40)"
        )
    before = rows(engine, files)

    migrate.upgrade(database_url)

    assert rows(engine, files) == before
    # The planner knows the column; without it a page of a large store would sort the whole table.
    known = "SELECT n_distinct FROM pg_stats WHERE tablename = 'models' AND attname = 'tenant_id'"
    assert len(rows(engine, known)) == 1
    assert rows(engine, "SELECT id, name FROM tenants") == [(scope.DEFAULT_ID, "default")]
    for table in ("models", "coverage_minutes"):
        assert rows(engine, f"SELECT tenant_id FROM {table}") == [(scope.DEFAULT_ID,)]  # noqa: S608


def test_a_store_with_more_tenants_is_not_taken_back_below_them(acme: uuid.UUID, database_url: str) -> None:
    assert acme

    with pytest.raises(SystemExit, match="delete their rows"):
        migrate.downgrade(database_url, "0017")


@pytest.mark.parametrize("name", ["", "Acme", "-acme", "a_b", "a" * 64, "acme\n"])
def test_a_tenants_name_is_a_label(sessions: sessionmaker[Session], name: str) -> None:
    with pytest.raises(IntegrityError), sessions.begin() as session:
        session.add(Tenant(id=uuid.uuid4(), name=name))


def test_two_tenants_serve_one_model_by_one_pair_and_share_no_row(
    sessions: sessionmaker[Session], acme: uuid.UUID
) -> None:
    of_acme = decoders.NewDecoder(**{**vars_of(seed.DECODER), "tenant": "acme", "d_model": 8})
    with sessions.begin() as session:
        ids = [decoders.register_decoder(session, one) for one in (seed.DECODER, of_acme, of_acme)]

    assert ids[0] != ids[1] == ids[2]
    assert ids[0] == (identity.model_id("tiny"), identity.decoder_id("0" * 64))
    with sessions() as session:
        for column in (Model.tenant_id, Decoder.tenant_id):
            assert set(session.scalars(select(column))) == {scope.DEFAULT_ID, acme}


def vars_of(decoder: decoders.NewDecoder) -> dict[str, Any]:
    return {name: getattr(decoder, name) for name in decoder.__dataclass_fields__}


def test_no_decoder_is_registered_for_an_unknown_tenant(sessions: sessionmaker[Session]) -> None:
    unknown = decoders.NewDecoder(**{**vars_of(seed.DECODER), "tenant": "nobody"})

    with sessions() as session, pytest.raises(ValueError, match="subtext tenant create nobody"):
        decoders.register_decoder(session, unknown)


def test_one_source_counts_for_each_tenant_apart(
    sessions: sessionmaker[Session], engine: Engine, acme: uuid.UUID
) -> None:
    count = coverage.SourceCount(
        minute=MINUTE, source="s", hop="plugin", model="tiny", stratum="uniform", counter="c", count=2
    )
    for tenant in (scope.DEFAULT_ID, acme, acme):
        with sessions.begin() as session:
            scope.set_tenant(session, tenant)
            coverage.add_counts(session, [count])

    found = rows(engine, "SELECT tenant_id, count FROM coverage_minutes")
    assert dict(map(tuple, found)) == {scope.DEFAULT_ID: 2, acme: 4}


def test_a_tenant_is_named_for_one_transaction_and_what_it_stores_is_its_own(
    sessions: sessionmaker[Session], acme: uuid.UUID
) -> None:
    with sessions() as session:
        scope.set_tenant(session, acme)
        first = seed.add_model(session, "a").model
        session.commit()
        second = seed.add_model(session, "b").model
        session.commit()

        assert (first.tenant_id, second.tenant_id) == (acme, scope.DEFAULT_ID)
