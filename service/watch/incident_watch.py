"""How triage and webhooks stand, looked up beside the requests: a scrape never waits for the database."""

import datetime as dt
import threading
from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.incident_metrics import IncidentMetrics
from service.store import outbox
from service.store.engine import UnusableDatabaseError
from service.store.read import incidents, precision

_log: Final = structlog.get_logger(__name__)
_EVERY_SECONDS: Final = 60.0
_PRECISION_EVERY: Final = dt.timedelta(minutes=10)
"""People label seldom, and it counts all flags of a month."""


class IncidentWatch:
    """Looks once a minute in a thread of its own, at precision every ten minutes."""

    def __init__(
        self, sessions: sessionmaker[Session], metrics: IncidentMetrics, destinations: Sequence[str]
    ) -> None:
        """``destinations`` are the names of the webhooks."""
        self._sessions = sessions
        self._metrics = metrics
        self._destinations = destinations
        self._next_precision = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="incident-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after a look under way."""
        self._stop.set()
        self._thread.join(timeout=5)

    def look(self, now: dt.datetime) -> None:
        """Look once; while the database is away the metrics keep their last values."""
        for look in (self._look_at_webhooks, self._look_at_incidents, self._look_at_precision):
            try:
                with self._sessions() as session:
                    look(session, now)
            except (SQLAlchemyError, UnusableDatabaseError) as error:
                # One figure that takes too long leaves the others fresh.
                _log.warning("incidents_not_counted", look=look.__name__, error_type=type(error).__name__)

    def _look_at_webhooks(self, session: Session, now: dt.datetime) -> None:
        waiting = outbox.list_waiting(session, self._destinations) if self._destinations else {}
        self._metrics.set_waiting(waiting, now)

    def _look_at_incidents(self, session: Session, now: dt.datetime) -> None:
        self._metrics.set_undecided(incidents.count_undecided(session), now)

    def _look_at_precision(self, session: Session, now: dt.datetime) -> None:
        if now >= self._next_precision:
            self._metrics.set_precision(precision.count_watched(session))
            self._next_precision = now + _PRECISION_EVERY

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look(dt.datetime.now(dt.UTC))
            self._stop.wait(_EVERY_SECONDS)
