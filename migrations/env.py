"""Runs the revisions: one migrator at a time, one transaction each, never waiting long for a lock.

Nothing is set or locked for longer than a transaction, so it works through a pooler as well.
"""

import os

import sqlalchemy
from alembic import context

from service.store.engine import create_migrator, set_in_each_transaction
from service.store.tables import Base

# Any constant works; it only has to differ from other users of advisory locks in this database.
_LOCK = 5_873_146_021
_WAIT_FOR_OTHER_MIGRATOR = "600s"
# DDL that queues behind a long query blocks everything behind it: give up fast, try again later.
_LOCK_TIMEOUT = "5s"
_STATEMENT_TIMEOUT = "300s"


def database_url() -> str:
    url = context.config.attributes.get("url") or os.environ.get("SUBTEXT_DATABASE_URL")
    if not url:
        raise SystemExit("SUBTEXT_DATABASE_URL is not set; give the database to migrate")
    return str(url)


def run() -> None:
    url = database_url()
    guard, engine = create_migrator(url), create_migrator(url)
    set_in_each_transaction(
        guard,
        {
            "lock_timeout": "0",
            "statement_timeout": _WAIT_FOR_OTHER_MIGRATOR,
            "idle_in_transaction_session_timeout": "0",
        },
    )
    set_in_each_transaction(
        engine, {"lock_timeout": _LOCK_TIMEOUT, "statement_timeout": _STATEMENT_TIMEOUT}
    )
    # A connection of its own: the lock is of a transaction and must outlive those of the revisions. It
    # holds no snapshot and no lock on any table meanwhile.
    with guard.begin() as lock, engine.connect() as connection:
        lock.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations need a live database; --sql is not supported")
run()
