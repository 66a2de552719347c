"""Runs the revisions: one migrator at a time, one transaction each, never waiting long for a lock."""

import os
import time

import sqlalchemy
from alembic import context

from service.store.engine import driver_url
from service.store.tables import Base

# Any constant works; it only has to differ from other users of advisory locks in this database.
_LOCK = 5_873_146_021
_WAIT_FOR_OTHER_MIGRATOR_SECONDS = 600.0
_ASK_AGAIN_SECONDS = 0.2
# DDL that queues behind a long query blocks everything behind it: give up fast, try again later.
_LOCK_TIMEOUT = "5s"
_STATEMENT_TIMEOUT = "300s"


def database_url() -> sqlalchemy.URL:
    url = context.config.attributes.get("url") or os.environ.get("SUBTEXT_DATABASE_URL")
    if not url:
        raise SystemExit("SUBTEXT_DATABASE_URL is not set; give the database to migrate")
    return driver_url(url)


def set_timeouts(connection: sqlalchemy.Connection, *, lock: str, statement: str) -> None:
    for name, value in (("lock_timeout", lock), ("statement_timeout", statement)):
        connection.execute(
            sqlalchemy.text("SELECT set_config(:name, :value, false)"), {"name": name, "value": value}
        )


def wait_for_other_migrators(connection: sqlalchemy.Connection) -> None:
    """Take the lock, of the session and not of a transaction: it must outlive each revision's commit.

    Closing the connection releases it. It is asked for again and again, each time in a transaction that
    ends: an index that the other migrator builds concurrently waits for every open one, so that two
    would wait for each other.
    """
    deadline = time.monotonic() + _WAIT_FOR_OTHER_MIGRATOR_SECONDS
    while not connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
        connection.rollback()
        if time.monotonic() > deadline:
            raise SystemExit("another migrator is still at work; try again when it has ended")
        time.sleep(_ASK_AGAIN_SECONDS)


def run() -> None:
    engine = sqlalchemy.create_engine(database_url(), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        wait_for_other_migrators(connection)
        set_timeouts(connection, lock=_LOCK_TIMEOUT, statement=_STATEMENT_TIMEOUT)
        connection.commit()
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
