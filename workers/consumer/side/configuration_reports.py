"""Says again and again what this worker runs, so that the store knows until when it was in force."""

import threading
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.orm import Session, sessionmaker

from service.store.configuration import write
from service.store.configuration.period import REPORT_SECONDS
from service.store.configuration.write import Report
from service.store.tenants.sessions import session_of
from workers.errors import STORE_ERRORS, is_outage

log = structlog.get_logger()


class ConfigurationReports:
    """Reports on a thread of its own. While the store is away there is a gap, which the store shows."""

    def __init__(self, reports: Sequence[Report]) -> None:
        """Report what the worker runs from its start to its end; the last one names the others."""
        self._reports = reports

    def note(self, session: Session) -> int:
        """Report to the tenant of the transaction; return the id of the last one's version."""
        ids = write.note(session, self._reports)
        last = self._reports[-1].configuration
        return ids[last.kind, last.digest]

    def run(
        self, stop: threading.Event, sessions: sessionmaker[Session], tenants: Callable[[], Sequence[str]]
    ) -> None:
        """Report to every tenant until told to stop; the last batch is still under way then."""
        while not stop.wait(REPORT_SECONDS):
            self.step(sessions, tenants())

    def end(self, sessions: sessionmaker[Session], tenants: Sequence[str]) -> None:
        """Say to every tenant that what is run ends now; while the store is away, to none."""
        sources = sorted({report.source for report in self._reports})
        for tenant in tenants:
            try:
                with session_of(sessions, tenant) as session:
                    for source in sources:
                        write.end(session, source)
                    session.commit()
            except STORE_ERRORS as error:
                log.warning("configuration_end_not_reported", error=repr(error))
                if is_outage(error):
                    return

    def step(self, sessions: sessionmaker[Session], tenants: Sequence[str]) -> None:
        """Report once."""
        for tenant in tenants:
            try:
                with session_of(sessions, tenant) as session:
                    self.note(session)
                    session.commit()
            except STORE_ERRORS as error:
                log.warning("configuration_not_reported", error=repr(error))
