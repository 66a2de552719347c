"""An outage is waited out, an entry's fault is not: neither may be taken for the other."""

import psycopg
import psycopg.errors
import pytest
import sqlalchemy.exc
from redis import exceptions

from workers.errors import is_outage


def from_postgres(error: psycopg.Error) -> Exception:
    """Wrap as SQLAlchemy does."""
    return sqlalchemy.exc.DBAPIError.instance("INSERT", {}, error, psycopg.Error)


@pytest.mark.parametrize(
    "error",
    [
        from_postgres(psycopg.OperationalError("connection refused")),
        from_postgres(psycopg.errors.AdminShutdown("terminating connection")),
        from_postgres(psycopg.errors.DiskFull("no space left")),
        from_postgres(psycopg.errors.LockNotAvailable("lock timeout")),
        from_postgres(psycopg.errors.DeadlockDetected("deadlock")),
        from_postgres(psycopg.errors.ReadOnlySqlTransaction("after a failover")),
        from_postgres(psycopg.errors.UndefinedTable("not migrated yet")),
        from_postgres(psycopg.errors.InsufficientPrivilege("no grant")),
        sqlalchemy.exc.TimeoutError("no free connection"),
        exceptions.ConnectionError("gone"),
        exceptions.TimeoutError("slow"),
        exceptions.BusyLoadingError("loading"),
        exceptions.ReadOnlyError("after a failover"),
    ],
    ids=lambda error: type(getattr(error, "orig", error)).__name__,
)
def test_a_store_that_cannot_work_is_an_outage(error: Exception) -> None:
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        from_postgres(psycopg.DataError("text fields cannot contain NUL")),
        from_postgres(psycopg.errors.NumericValueOutOfRange("integer out of range")),
        from_postgres(psycopg.errors.CheckViolation("probability")),
        from_postgres(psycopg.errors.ProgramLimitExceeded("index row size 3536 exceeds 2704")),
        RuntimeError("the decoder broke"),
        ValueError("not finite"),
    ],
    ids=lambda error: type(getattr(error, "orig", error)).__name__,
)
def test_what_is_wrong_with_one_entry_is_no_outage(error: Exception) -> None:
    assert not is_outage(error)
