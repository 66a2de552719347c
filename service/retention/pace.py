"""How fast rows are removed, and how a removal waits for locks that are in its way."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.erasure.rows import AT_ONCE
from service.store.tenants import scope

_BUSY: Final = frozenset({"55P03", "40P01"})  # SQLSTATE lock_not_available, deadlock_detected
Sessions = sessionmaker[Session]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much at once, so that whoever ingests is not kept waiting."""

    rows: int = AT_ONCE
    """Explanations, or records, a transaction."""
    pause_seconds: float = 0.2
    """After each transaction."""
    lock_seconds: float = 2.0
    """How long a transaction waits for a lock before it gives up and is tried again."""
    tries: int = 20


def is_busy(error: OperationalError) -> bool:
    """Tell whether somebody else's lock was in the way."""
    return getattr(error.orig, "sqlstate", None) in _BUSY


def patiently(sessions: Sessions, tenant: uuid.UUID, pace: Pace, work: Callable[[Session], T]) -> T:
    """Do it in a transaction of the tenant's that waits briefly for locks, again and again."""
    for attempt in range(1, pace.tries + 1):
        try:
            with sessions.begin() as session:
                scope.set_tenant(session, tenant)
                session.execute(text(f"SET LOCAL lock_timeout = '{round(pace.lock_seconds * 1000)}ms'"))
                return work(session)
        except OperationalError as error:
            if not is_busy(error) or attempt == pace.tries:
                raise
            time.sleep(pace.pause_seconds)
    raise AssertionError("unreachable")
