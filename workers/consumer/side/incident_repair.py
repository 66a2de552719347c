"""Writes the incidents that could not be written with what opens them, once the cause is gone."""

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from service.store.write import discoveries, incident_repair, readings
from service.store.write.discoveries import Reader
from service.store.write.incident_repair import Page, Place, Unrecorded
from workers.consumer.loop import Target
from workers.consumer.metrics import WorkerMetrics
from workers.errors import STORE_ERRORS

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
        target: Target,
        metrics: WorkerMetrics,
        *,
        anomaly_p_value: float | None,
    ) -> None:
        """``anomaly_p_value`` as in `service.store.tables.Incident`."""
        self._sessions = sessions
        self._target = target
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

        It goes on to what is older whatever fails, so that no incident keeps another from being written.
        """
        reader = Reader(self._target.model_id, self._target.decoder_id)
        pages = itertools.chain(
            self._pages(
                lambda session, last: incident_repair.list_unrecorded(session, *reader, within, last)
            ),
            self._pages(lambda session, last: discoveries.list_unrecorded(session, reader, within, last)),
        )
        written = 0
        for one in itertools.chain.from_iterable(pages):
            if stop is not None and stop.is_set():
                break
            written += self._is_repaired(one)
        return written

    def _pages(self, list_page: Callable[[Session, Place | None], Page]) -> Iterator[list[Unrecorded]]:
        last = None
        while True:
            with self._sessions() as session:
                unrecorded, last = list_page(session, last)
            yield unrecorded
            if last is None:
                return

    def _is_repaired(self, unrecorded: Unrecorded) -> bool:
        with self._sessions.begin() as session:
            readings.lock_captures(session, [unrecorded.subject])
            [recorded] = incident_repair.try_to_record(
                session, [unrecorded], anomaly_p_value=self._anomaly_p_value
            )
        errors = [] if recorded.error is None else [recorded.error]
        self._metrics.observe_incidents(self._target.model, recorded.changes, errors)
        for error in errors:
            log.error("incident_not_written", error_type=error)
        return bool(recorded.changes)
