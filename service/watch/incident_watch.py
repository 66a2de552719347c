"""How triage, webhooks, erasures and retention stand, looked up beside the requests that are answered."""

import datetime as dt
import threading
import uuid
from collections.abc import Mapping
from itertools import chain
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.incident_metrics import IncidentMetrics
from service.retention.decisions import count_asked
from service.retention.overdue import measure
from service.store import outbox
from service.store.engine import UnusableDatabaseError
from service.store.erasure import requests
from service.store.read import incidents, precision
from service.store.tenants import scope
from service.store.tenants.read import list_tenants, of_each, transaction
from service.watch.all_tenants import sum_labels, sum_undecided

_log: Final = structlog.get_logger(__name__)
_EVERY_SECONDS: Final = 60.0
_PRECISION_EVERY: Final = dt.timedelta(minutes=10)
"""People label seldom, and it counts all flags of a month."""

_RETENTION_EVERY: Final = dt.timedelta(minutes=10)
"""Periods are of days, and it passes over what is held."""


class IncidentWatch:
    """Looks once a minute in a thread of its own, at precision and retention every ten minutes."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        metrics: IncidentMetrics,
        destinations: Mapping[str, uuid.UUID],
    ) -> None:
        """``destinations`` are the tenants of the webhooks by their names."""
        self._sessions = sessions
        self._metrics = metrics
        self._destinations = destinations
        self._next_precision = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._next_retention = self._next_precision
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
        looks = (
            self._look_at_webhooks,
            self._look_at_incidents,
            self._look_at_precision,
            self._look_at_erasures,
            self._look_at_removals,
            self._look_at_retention,
        )
        for look in looks:
            try:
                look(now)
            except (SQLAlchemyError, UnusableDatabaseError) as error:
                # One figure that takes too long leaves the others fresh.
                _log.warning("incidents_not_counted", look=look.__name__, error_type=type(error).__name__)

    def _look_at_webhooks(self, now: dt.datetime) -> None:
        if not self._destinations:
            return
        known = set(list_tenants(self._sessions))
        for name, tenant in self._destinations.items():
            if tenant not in known:
                _log.warning("webhook_of_unknown_tenant", destination=name)
            with transaction(self._sessions, tenant) as session:
                self._metrics.set_waiting(outbox.list_waiting(session, [name]), now)

    def _look_at_incidents(self, now: dt.datetime) -> None:
        found = of_each(self._sessions, incidents.count_undecided)
        self._metrics.set_undecided(sum_undecided(chain.from_iterable(found)), now)

    def _look_at_precision(self, now: dt.datetime) -> None:
        if now >= self._next_precision:
            self._metrics.set_precision(sum_labels(of_each(self._sessions, precision.count_watched)))
            self._next_precision = now + _PRECISION_EVERY

    def _look_at_erasures(self, now: dt.datetime) -> None:
        found = of_each(self._sessions, lambda session: requests.count_open(session, now))
        self._metrics.set_erasures(found, now)

    def _look_at_removals(self, now: dt.datetime) -> None:
        found = of_each(self._sessions, lambda session: count_asked(session, scope.tenant_of(session), now))
        self._metrics.set_removals(chain.from_iterable(found))

    def _look_at_retention(self, now: dt.datetime) -> None:
        if now >= self._next_retention:
            self._metrics.set_retention(of_each(self._sessions, lambda session: measure(session, now)))
            self._next_retention = now + _RETENTION_EVERY

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look(dt.datetime.now(dt.UTC))
            self._stop.wait(_EVERY_SECONDS)
