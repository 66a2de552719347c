"""Says again and again what this worker runs, so that the store knows until when it was in force."""

import threading
from collections.abc import Sequence

import structlog
from sqlalchemy.orm import Session, sessionmaker

from service.store.configuration import write
from service.store.configuration.period import REPORT_SECONDS
from service.store.configuration.write import Report
from workers.errors import STORE_ERRORS

log = structlog.get_logger()


class ConfigurationReports:
    """Reports on a thread of its own. While the store is away there is a gap, which the store shows."""

    def __init__(self, sessions: sessionmaker[Session], reports: Sequence[Report]) -> None:
        """Report what the worker runs from its start to its end."""
        self._sessions = sessions
        self._reports = reports

    def run(self, stop: threading.Event) -> None:
        """Report until told to stop, then say that it ends."""
        while not stop.wait(REPORT_SECONDS):
            self.step()
        try:
            with self._sessions.begin() as session:
                for source in sorted({report.source for report in self._reports}):
                    write.end(session, source)
        except STORE_ERRORS as error:
            log.warning("configuration_end_not_reported", error=repr(error))

    def step(self) -> None:
        """Report once."""
        try:
            with self._sessions.begin() as session:
                write.note(session, self._reports)
        except STORE_ERRORS as error:
            log.warning("configuration_not_reported", error=repr(error))
