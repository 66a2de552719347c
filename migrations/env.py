"""Runs the revisions: one migrator at a time, one transaction each, never waiting long for a lock.

Nothing is set or locked for longer than a transaction, so it works through a pooler as well.
"""

import os
import time

import sqlalchemy
from alembic import context

import service.store.evidence.tables  # noqa: F401  # its tables are part of the metadata
from service.store import locks
from service.store.engine import create_migrator, set_in_each_transaction
from service.store.schema import METADATA

# Any constant works; it only has to differ from other users of advisory locks in this database.
_LOCK = 5_873_146_021
_WAIT_FOR_OTHER_MIGRATOR_SECONDS = 600.0
_ASK_AGAIN_SECONDS = 0.2
_STATEMENT_TIMEOUT = "300s"


def database_url() -> str:
    url = context.config.attributes.get("url") or os.environ.get("SUBTEXT_DATABASE_URL")
    if not url:
        raise SystemExit("SUBTEXT_DATABASE_URL is not set; give the database to migrate")
    return str(url)


def wait_for_other_migrators(guard: sqlalchemy.Connection) -> None:
    """Take the lock, of a transaction that stays open: it must outlive each revision's commit.

    It is asked for again and again, each time in a transaction that ends: an index that the other migrator
    builds concurrently waits for everybody who is in the middle of a statement, so that two would wait for
    each other. Once it is there, its transaction is idle: it holds no snapshot and no table's lock.
    """
    deadline = time.monotonic() + _WAIT_FOR_OTHER_MIGRATOR_SECONDS
    # Without parameters, which would need a portal, and an open portal keeps a snapshot.
    while not guard.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_LOCK})").scalar():
        guard.rollback()
        if time.monotonic() > deadline:
            raise SystemExit("another migrator is still at work; try again when it has ended")
        time.sleep(_ASK_AGAIN_SECONDS)


def partitions(connection: sqlalchemy.Connection) -> frozenset[str]:
    """Return the names of partitions, which are no tables of the models."""
    query = "SELECT relname FROM pg_class WHERE relispartition AND relkind IN ('r', 'p')"
    found = frozenset(connection.exec_driver_sql(query).scalars())
    connection.rollback()
    return found


def run() -> None:
    url = database_url()
    guarding, engine = create_migrator(url), create_migrator(url)
    set_in_each_transaction(guarding, {"idle_in_transaction_session_timeout": "0"})
    set_in_each_transaction(engine, {"lock_timeout": locks.WAIT, "statement_timeout": _STATEMENT_TIMEOUT})
    # A connection of its own, whose transaction ends when it is closed.
    with guarding.connect() as guard, engine.connect() as connection:
        wait_for_other_migrators(guard)
        left_out = partitions(connection)
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            transaction_per_migration=True,
            compare_server_default=True,
            include_name=lambda name, kind, _: not (kind == "table" and name in left_out),
        )
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations need a live database; --sql is not supported")
run()
