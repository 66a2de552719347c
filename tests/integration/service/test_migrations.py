import alembic.command
import pytest
from sqlalchemy import inspect

from service.store import migrate
from service.store.engine import create_engine, ping, with_database
from service.store.tables import Base


def test_a_migrated_database_is_at_head_and_has_every_table(database_url: str) -> None:
    engine = create_engine(database_url)

    assert migrate.is_at_head(engine)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_down_to_nothing_and_up_again_ends_at_head(database_url: str) -> None:
    engine = create_engine(database_url)

    migrate.downgrade(database_url, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert not migrate.is_at_head(engine)
    migrate.upgrade(database_url)

    assert migrate.is_at_head(engine)
    engine.dispose()


def test_autogenerate_finds_no_difference_between_tables_and_migrations(database_url: str) -> None:
    alembic.command.check(migrate.config(database_url))


def test_a_session_runs_in_utc_with_timeouts(database_url: str) -> None:
    engine = create_engine(database_url, statement_timeout_seconds=1.5, lock_timeout_seconds=0.5)

    with engine.connect() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("timezone", "statement_timeout", "lock_timeout")
        ]

    assert shown == ["UTC", "1500ms", "500ms"]
    engine.dispose()


def test_replacing_the_database_keeps_the_socket(database_url: str) -> None:
    engine = create_engine(with_database(database_url, "postgres"))

    ping(engine)

    engine.dispose()


def test_migrating_without_a_database_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBTEXT_DATABASE_URL", raising=False)

    with pytest.raises(SystemExit, match="SUBTEXT_DATABASE_URL"):
        alembic.command.upgrade(migrate.config(), "head")
