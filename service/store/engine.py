"""Connections to PostgreSQL: one way to build an engine for worker, service, migrations and tests.

Knows nothing of tables and reads no environment.
"""

from collections.abc import Mapping

import sqlalchemy
from sqlalchemy import Engine, make_url
from sqlalchemy.orm import Session, sessionmaker

_DRIVER = "postgresql+psycopg"
_ALIASES = frozenset({"postgres", "postgresql", _DRIVER})


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
    """Return an engine whose sessions run in UTC and cannot wait for ever.

    ``pool_size`` is a hard bound: further callers wait ``pool_timeout_seconds`` for a connection.
    Nothing connects before the first use.
    """
    parameters: Mapping[str, str] = {
        "timezone": "UTC",
        "statement_timeout": str(round(statement_timeout_seconds * 1000)),
        "lock_timeout": str(round(lock_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": "60000",
    }
    return sqlalchemy.create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        pool_pre_ping=True,  # a restarted server must cost a reconnect, not a failed request
        connect_args={
            "application_name": application_name,
            "connect_timeout": connect_timeout_seconds,
            "options": " ".join(f"-c {name}={value}" for name, value in parameters.items()),
        },
    )


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return the session maker; rows stay readable after commit, and whoever opened it commits."""
    return sessionmaker(engine, expire_on_commit=False)


def ping(engine: Engine) -> None:
    """Run one trivial statement; raises sqlalchemy.exc.SQLAlchemyError when the server is away."""
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
