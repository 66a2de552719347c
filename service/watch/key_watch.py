"""How many keys in use expire soon, counted beside the requests: a scrape never waits for the database."""

import datetime as dt
import threading
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.metrics import Metrics
from service.store import keys
from service.store.engine import UnusableDatabaseError
from service.store.tenants.read import of_each

_log: Final = structlog.get_logger(__name__)
_EVERY_SECONDS: Final = 60.0
EXPIRES_WITHIN: Final = dt.timedelta(days=14)
USED_WITHIN: Final = dt.timedelta(days=1)
"""A key that nobody uses any more, as after a rotation, may expire in silence."""


class KeyWatch:
    """Counts once a minute in a thread of its own."""

    def __init__(self, sessions: sessionmaker[Session], metrics: Metrics) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after a count that runs."""
        self._stop.set()
        self._thread.join(timeout=5)

    def count(self, now: dt.datetime) -> None:
        """Count once; while the database is away the metric keeps its last value."""
        try:
            found = sum(of_each(self._sessions, lambda session: self._count(session, now)))
        except (SQLAlchemyError, UnusableDatabaseError) as error:
            _log.debug("keys_not_counted", error_type=type(error).__name__)
            return
        self._metrics.set_expiring_keys(found)

    @staticmethod
    def _count(session: Session, now: dt.datetime) -> int:
        return keys.count_expiring(session, now, within=EXPIRES_WITHIN, used_since=now - USED_WITHIN)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.count(dt.datetime.now(dt.UTC))
            self._stop.wait(_EVERY_SECONDS)
