"""Whether requests can be answered: what is looked at, and how often at most."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from service.store import engine, migrate
from service.store.remembered import Remembered

_log: Final = structlog.get_logger(__name__)
REMEMBERED_SECONDS: Final = 1.0
"""Anybody may ask without a key, and must not make us ask the database as often."""


class Finding(NamedTuple):
    """What one check found."""

    ok: bool
    detail: str


def readiness(
    database: Engine, clock: Callable[[], float] = time.monotonic
) -> Remembered[dict[str, Finding]]:
    """Return the checks of this database by name, looked at once a second at most."""
    return Remembered(lambda: _look(database), REMEMBERED_SECONDS, clock)


def _look(database: Engine) -> dict[str, Finding]:
    return {
        "postgres": _check("postgres", _postgres, database),
        "migrations": _check("migrations", _migrations, database),
    }


def _postgres(database: Engine) -> Finding:
    engine.ping(database)
    return Finding(ok=True, detail="answers")


def _migrations(database: Engine) -> Finding:
    current, head = migrate.current_revision(database), migrate.head_revision()
    detail = f"at {current or 'nothing'}, head is {head}"
    return Finding(
        ok=current == head, detail=detail if current == head else f"{detail}; run: subtext migrate"
    )


def _check(name: str, run: Callable[[Engine], Finding], database: Engine) -> Finding:
    try:
        return run(database)
    except (SQLAlchemyError, engine.UnusableDatabaseError) as error:
        # The driver's message may hold addresses: it goes to the log, not to an open endpoint.
        _log.warning("readiness_check_failed", check=name, error=str(error))
        return Finding(ok=False, detail=f"fails with {type(error).__name__}; see the service's log")
