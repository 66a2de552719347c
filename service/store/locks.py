"""Locks of tables that somebody else may hold: wait briefly, let go of everything, try again.

PostgreSQL ends one of two transactions that wait for each other, and picks whoever's `deadlock_timeout` is
over first. Who waits for less than that, here a migration, has let go by then, and nobody at work is ended.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy.exc import OperationalError

WAIT: Final = "500ms"
"""Half of PostgreSQL's default `deadlock_timeout`. What queues behind who waits so waits as briefly."""
_LOCKED: Final = frozenset({"55P03", "40P01"})  # SQLSTATE lock_not_available, deadlock_detected
T = TypeVar("T")


def is_locked(error: OperationalError) -> bool:
    """Tell whether the statement did nothing because somebody else held a lock."""
    return getattr(error.orig, "sqlstate", None) in _LOCKED


def when_free(work: Callable[[], T], *, tries: int, pause_seconds: float) -> T:
    """Do the work, which gives up where something is locked, up to so many times.

    Raises the OperationalError of the last try; one that is not of a lock is raised at once.
    """
    for _ in range(tries - 1):
        try:
            return work()
        except OperationalError as error:
            if not is_locked(error):
                raise
        time.sleep(pause_seconds)
    return work()
