"""Writes the incidents that could not be written with what opens them, once the cause is gone."""

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from service.store.tenants.sessions import session_of
from service.store.write import discoveries, incident_repair, readings
from service.store.write.incident_repair import Page, Place, Unrecorded
from workers.consumer.metrics import WorkerMetrics
from workers.consumer.targets import Target
from workers.errors import STORE_ERRORS, is_outage

log = structlog.get_logger()

_EVERY_SECONDS: Final = 300.0
_LATE: Final = dt.timedelta(minutes=15)
_WHOLE_EVERY: Final = 12
"""One look of so many is at everything that is still repaired, the others at what was raised of late."""


class IncidentRepair:
    """Looks on a thread of its own for flags and discoveries that no incident tells; many workers may."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        targets: Callable[[], Sequence[Target]],
        metrics: WorkerMetrics,
        *,
        model: str,
        anomaly_p_value: float | None,
    ) -> None:
        """``targets`` tells whose incidents are looked for, each time; ``model`` is the served name of all.

        ``anomaly_p_value`` as in `service.store.tables.Incident`.
        """
        self._sessions = sessions
        self._targets = targets
        self._model = model
        self._metrics = metrics
        self._anomaly_p_value = anomaly_p_value

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; an outage is waited out."""
        for look in itertools.count():
            if stop.is_set():
                return
            try:
                self.step(_LATE if look % _WHOLE_EVERY else incident_repair.REPAIRED_WITHIN, stop)
            except STORE_ERRORS as error:
                log.warning("incident_repair_waits", error=repr(error))
            stop.wait(_EVERY_SECONDS)

    def step(
        self, within: dt.timedelta = incident_repair.REPAIRED_WITHIN, stop: threading.Event | None = None
    ) -> int:
        """Look once at what was found within the time; return how many incidents were written.

        It goes on to what is older, and to the next tenant, whatever fails but the store as a whole, so
        that no incident keeps another from being written.
        """
        stop = stop or threading.Event()
        return sum(self._repair(target, within, stop) for target in self._targets() if not stop.is_set())

    def _repair(self, target: Target, within: dt.timedelta, stop: threading.Event) -> int:
        written = 0
        try:
            for one in self._unrecorded(target, within):
                if stop.is_set():
                    break
                written += self._is_repaired(target, one)
        except STORE_ERRORS as error:
            if is_outage(error):
                raise
            log.warning("incident_repair_fails", tenant=target.tenant, error=repr(error))
        return written

    def _unrecorded(self, target: Target, within: dt.timedelta) -> Iterator[Unrecorded]:
        reader = target.reader
        pages = itertools.chain(
            self._pages(
                target,
                lambda session, last: incident_repair.list_unrecorded(session, *reader, within, last),
            ),
            self._pages(
                target, lambda session, last: discoveries.list_unrecorded(session, reader, within, last)
            ),
        )
        return itertools.chain.from_iterable(pages)

    def _pages(
        self, target: Target, list_page: Callable[[Session, Place | None], Page]
    ) -> Iterator[list[Unrecorded]]:
        last = None
        while True:
            with session_of(self._sessions, target.tenant) as session:
                unrecorded, last = list_page(session, last)
            yield unrecorded
            if last is None:
                return

    def _is_repaired(self, target: Target, unrecorded: Unrecorded) -> bool:
        with session_of(self._sessions, target.tenant) as session:
            readings.lock_captures(session, [unrecorded.subject])
            [recorded] = incident_repair.try_to_record(
                session, [unrecorded], anomaly_p_value=self._anomaly_p_value
            )
            session.commit()
        errors = [] if recorded.error is None else [recorded.error]
        self._metrics.observe_incidents(self._model, recorded.changes, errors)
        for error in errors:
            log.error("incident_not_written", error_type=error)
        return bool(recorded.changes)
