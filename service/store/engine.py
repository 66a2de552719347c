"""Connections to PostgreSQL: one way to build an engine for worker, service, migrations and tests.

Knows nothing of tables and reads no environment.
"""

from collections.abc import Mapping
from typing import Any, Final

import psycopg
import sqlalchemy
import sqlalchemy.event
from sqlalchemy import Engine, ExceptionContext, make_url
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

_DRIVER = "postgresql+psycopg"
_ALIASES = frozenset({"postgres", "postgresql", _DRIVER})
_READ_ONLY: Final = "25006"  # SQLSTATE read_only_sql_transaction


class UnusableDatabaseError(ValueError):
    """The database can never be used as it is; the message names the fix."""


class ReadOnlyDatabaseError(RuntimeError):
    """The database answers and takes no writes, as a standby does."""


def driver_url(url: str) -> sqlalchemy.URL:
    """Return ``url`` for SQLAlchemy over psycopg 3.

    Takes ``postgres://``, ``postgresql://`` and ``postgresql+psycopg://``, also with a unix socket
    (``postgresql://postgres:@/name?host=/directory``). Raises ValueError for anything else, without
    repeating the URL, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ValueError(
            "the database URL cannot be parsed; write postgresql://user:password@host/name"
        ) from None
    if parsed.drivername not in _ALIASES:
        raise ValueError(f"the database URL starts with {parsed.drivername}://; use postgresql://")
    return parsed.set(drivername=_DRIVER)


def with_database(url: str, name: str) -> str:
    """Return ``url`` with its database replaced by ``name``; scheme, socket and password stay."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def with_user(url: str, name: str) -> str:
    """Return ``url`` with its login replaced by ``name``; everything else stays, the password too."""
    return make_url(url).set(username=name).render_as_string(hide_password=False)


def with_password(url: str, password: str) -> str:
    """Return ``url`` with this password, whatever characters it has."""
    return make_url(url).set(password=password).render_as_string(hide_password=False)


def create_engine(
    url: str,
    *,
    pool_size: int = 5,
    pool_timeout_seconds: float = 10.0,
    connect_timeout_seconds: int = 5,
    statement_timeout_seconds: float = 30.0,
    lock_timeout_seconds: float = 5.0,
    application_name: str = "subtext",
) -> Engine:
    """Return an engine whose transactions run in UTC and cannot wait for ever.

    ``pool_size`` is a hard bound: further callers wait ``pool_timeout_seconds`` for a connection.
    Nothing connects before the first use, which raises UnusableDatabaseError for a database whose
    encoding is not UTF-8. It works through a pooler that gives each transaction another connection
    (PgBouncer in transaction mode): nothing is set for longer than a transaction.
    """
    engine = sqlalchemy.create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        hide_parameters=True,  # they hold request ids, texts and digests of keys
        # The connection that was used last is used again: of each partition that a backend meets first it
        # reads the catalogue, which takes it up to a second where tables have 180 days.
        pool_use_lifo=True,
        # What a server closed, restarting or as idle, must cost a reconnect, not a failed request.
        pool_pre_ping=True,
        connect_args=_connect_args(connect_timeout_seconds, application_name),
    )
    _watch(engine)
    set_in_each_transaction(
        engine,
        {
            "timezone": "UTC",
            "statement_timeout": str(round(statement_timeout_seconds * 1000)),
            "lock_timeout": str(round(lock_timeout_seconds * 1000)),
            "idle_in_transaction_session_timeout": "60000",
        },
    )
    return engine


def create_migrator(url: str) -> Engine:
    """Return an engine for migrations: it keeps no connection, and whoever uses it sets its timeouts."""
    engine = sqlalchemy.create_engine(
        driver_url(url),
        poolclass=sqlalchemy.NullPool,
        hide_parameters=True,
        connect_args=_connect_args(10, "subtext-migrate"),
    )
    _watch(engine)
    return engine


def set_in_each_transaction(engine: Engine, parameters: Mapping[str, str]) -> None:
    """Set these run-time parameters at the beginning of every transaction, for that transaction alone.

    Neither start-up options, which poolers refuse, nor of the session: a pooler would hand that on to
    whoever gets the connection next. It costs one round trip a transaction.
    """
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in parameters.items())

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql(f"SELECT {calls}")

    sqlalchemy.event.listen(engine, "begin", begin)


def _connect_args(connect_timeout_seconds: int, application_name: str) -> dict[str, Any]:
    return {
        "application_name": application_name,
        "connect_timeout": connect_timeout_seconds,
        "client_encoding": "utf8",
        # Prepared statements belong to a connection, which a pooler changes under us.
        "prepare_threshold": None,
        # A server that vanishes without a word, as in a switchover, must not be waited for: the kernel
        # would take a quarter of an hour to notice.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def _watch(engine: Engine) -> None:
    # Before SQLAlchemy's own first look at the server, which fails on a database that gives bytes for text.
    sqlalchemy.event.listen(engine, "connect", _refuse_encoding, insert=True)
    sqlalchemy.event.listen(engine, "handle_error", _let_go_of_standby)
    sqlalchemy.event.listen(engine, "handle_error", _leave_details_out)
    _close_what_returns_late(engine)


def _close_what_returns_late(engine: Engine) -> None:
    """Close a connection that was in use when the engine was disposed, once it is given back.

    SQLAlchemy puts it into the pool that was given up, where nobody closes it: it stays open until it
    happens to be collected.
    """
    times_disposed = 0

    def count(_engine: Engine) -> None:
        nonlocal times_disposed
        times_disposed += 1

    def remember(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["opened_after"] = times_disposed

    def close(connection: Any, record: ConnectionPoolEntry) -> None:
        # None: the connection broke while it was in use, and is closed.
        if connection is not None and record.info.get("opened_after") != times_disposed:
            connection.close()

    sqlalchemy.event.listen(engine, "engine_disposed", count)
    sqlalchemy.event.listen(engine, "connect", remember)
    sqlalchemy.event.listen(engine, "checkin", close)


def _refuse_encoding(connection: Any, _record: object) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in {None, "UTF8"}:  # None: a pooler that does not tell
        connection.close()
        raise UnusableDatabaseError(
            f"the database's encoding is {encoding}, and texts need UTF8; create another one:"
            " CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )


def _let_go_of_standby(context: ExceptionContext) -> None:
    """Give up every connection to a server that only reads: its address may lead to another one now."""
    if is_read_only(context.original_exception):
        context.is_disconnect = True


def _leave_details_out(context: ExceptionContext) -> None:
    """Keep the first line of what the server said: the others quote rows, and errors are logged."""
    cause = context.original_exception
    if not isinstance(cause, psycopg.Error) or cause.diag.message_primary is None:
        return
    whole, first = str(cause), cause.diag.message_primary
    for error in (cause, context.sqlalchemy_exception):
        if error is not None:
            error.args = tuple(
                part.replace(whole, first) if isinstance(part, str) else part for part in error.args
            )


def is_read_only(error: BaseException | None) -> bool:
    """Tell whether PostgreSQL refused a write because it takes none, as a standby does."""
    cause = getattr(error, "orig", error)
    return getattr(cause, "sqlstate", None) == _READ_ONLY


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return the session maker; rows stay readable after commit, and whoever opened it commits."""
    return sessionmaker(engine, expire_on_commit=False)


def ping(engine: Engine) -> None:
    """Run one trivial statement; raises sqlalchemy.exc.SQLAlchemyError when the server is away."""
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))


def ping_writable(engine: Engine) -> None:
    """As `ping`; ReadOnlyDatabaseError, and new connections from then on, when it takes no writes."""
    with engine.connect() as connection:
        answer = connection.execute(sqlalchemy.text("SHOW transaction_read_only")).scalar_one()
    if answer == "on":
        engine.dispose()
        raise ReadOnlyDatabaseError("PostgreSQL is read-only: a standby, or after a switchover")
