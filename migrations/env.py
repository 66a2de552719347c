"""Runs the revisions: one migrator at a time, one transaction each, never waiting long for a lock."""

import os

import sqlalchemy
from alembic import context

from service.store.engine import driver_url
from service.store.tables import Base

# Any constant works; it only has to differ from other users of advisory locks in this database.
_LOCK = 5_873_146_021
_WAIT_FOR_OTHER_MIGRATOR = "600s"
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


def run() -> None:
    engine = sqlalchemy.create_engine(database_url(), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        set_timeouts(connection, lock="0", statement=_WAIT_FOR_OTHER_MIGRATOR)
        # Of the session, not the transaction: it must outlive the commit of each revision. Closing
        # the connection releases it.
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
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
