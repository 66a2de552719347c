"""How fast rows are removed, and how a removal waits for locks that are in its way."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from service.erasure.rows import AT_ONCE
from service.store import locks
from service.store.tenants import scope

Sessions = sessionmaker[Session]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much at once, so that whoever ingests is not kept waiting."""

    rows: int = AT_ONCE
    """Explanations, or records, a transaction."""
    pause_seconds: float = 0.2
    """After each transaction."""
    lock_seconds: float = 0.5
    """How long a transaction waits for a lock before it gives up and is tried again: see `locks.WAIT`."""
    tries: int = 60


def patiently(sessions: Sessions, tenant: uuid.UUID, pace: Pace, work: Callable[[Session], T]) -> T:
    """Do it in a transaction of the tenant's that waits briefly for locks, again and again."""

    def attempt() -> T:
        with sessions.begin() as session:
            scope.set_tenant(session, tenant)
            session.execute(text(f"SET LOCAL lock_timeout = '{round(pace.lock_seconds * 1000)}ms'"))
            return work(session)

    return locks.when_free(attempt, tries=pace.tries, pause_seconds=pace.pause_seconds)
