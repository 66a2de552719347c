"""Tests complete requests for being anomalies, window by window, in a thread of its own.

Of several workers one at a time does it: whoever gets the lock. A window is of one tenant's requests, and
with its incidents one transaction, so a crash leaves the requests to the next look.
"""

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.store.tenants.sessions import session_of
from service.store.write import discoveries
from service.store.write.discoveries import Reader, Span
from service.store.write.incident_repair import Recorded
from service.store.write.window import NewWindow
from workers.consumer.metrics import WorkerMetrics
from workers.consumer.targets import Target
from workers.errors import is_outage
from workers.judge.windows import Readiness, RequestTester, WindowPlan

log = structlog.get_logger()
_MOST_SECONDS: Final = 60.0
_LOOKS_A_WINDOW: Final = 10


class DiscoveryWatch:
    """Looks whether a window can be closed, and closes it."""

    def __init__(
        self,
        *,
        sessions: sessionmaker[Session],
        targets: Callable[[], Sequence[Target]],
        tester: RequestTester | None,
        plan: WindowPlan,
        metrics: WorkerMetrics,
        labels: tuple[str, str],
        anomaly_p_value: float | None,
    ) -> None:
        """``targets`` tells whose requests are tested, each time.

        ``tester`` None: the decoder has no anomaly reference. ``labels`` are model and layer.
        """
        self._sessions = sessions
        self._targets = targets
        self._tester = tester
        self._plan = plan
        self._metrics = metrics
        self._labels = labels
        self._anomaly_p_value = anomaly_p_value
        self._readiness = Readiness.NO_REFERENCE if tester is None else tester.readiness
        metrics.start_request_tests(*labels, self._readiness)

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop."""
        if self._readiness != Readiness.READY:
            log.warning(
                "requests_not_tested",
                reason=self._readiness,
                benign_requests_needed=self._plan.reference_requests,
            )
            stop.wait()
            return
        pause = min(_MOST_SECONDS, self._plan.length.total_seconds() / _LOOKS_A_WINDOW)
        while not stop.is_set():
            self.look(dt.datetime.now(dt.UTC))
            stop.wait(pause)

    def look(self, now: dt.datetime) -> None:
        """Close the windows that are due; a store that is away is asked again at the next look."""
        if self._tester is None:
            return
        for target in self._targets():
            try:
                with session_of(self._sessions, target.tenant) as session:
                    windows, recorded = self._close(session, target.reader, self._tester, now)
                    session.commit()
            except SQLAlchemyError as error:
                self._metrics.failures.labels(type(error).__name__).inc()
                log.warning("requests_not_tested_now", tenant=target.tenant, error=repr(error))
                if is_outage(error):
                    return
            else:
                self._tell(windows, recorded)

    def _close(
        self, session: Session, reader: Reader, tester: RequestTester, now: dt.datetime
    ) -> tuple[list[NewWindow], list[Recorded]]:
        if not discoveries.try_own(session, reader):
            return [], []
        last = discoveries.last_closed_at(session, reader)
        if last is not None and now - last < self._plan.length:
            return [], []
        windows = tester.close(discoveries.list_untested(session, reader, self._span(now, last)), now)
        recorded = discoveries.store_windows(
            session, reader, windows, anomaly_p_value=self._anomaly_p_value
        )
        return windows, recorded

    def _span(self, now: dt.datetime, last: dt.datetime | None) -> Span:
        """Return where untested requests may lie: what is older was tested, or came too late for it."""
        plan = self._plan
        oldest = now - plan.longest - plan.late
        since_last = oldest if last is None else last - plan.settle - plan.late
        return Span(max(oldest, since_last), now - plan.settle)

    def _tell(self, windows: Sequence[NewWindow], recorded: Sequence[Recorded]) -> None:
        for window in windows:
            found = sum(test.is_discovery for test in window.tests)
            self._metrics.requests_tested.labels(*self._labels).inc(len(window.tests))
            self._metrics.request_discoveries.labels(*self._labels).inc(found)
            log.info("anomaly_window_closed", requests=len(window.tests), discoveries=found)
        changes = [change for one in recorded for change in one.changes]
        errors = [one.error for one in recorded if one.error is not None]
        self._metrics.observe_incidents(self._labels[0], changes, errors)
        for error in errors:
            log.error("incident_not_written", error_type=error)
