"""Keep each canary's result in the store, where recall over any period is counted."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.store.canary import runs
from service.store.identity import DEFAULT_TENANT
from service.store.tenants.sessions import session_of
from workers.canary.prompts import Canary
from workers.canary.runner import Result

log = structlog.get_logger()


class RunRecorder:
    """Records results; one that cannot be recorded is logged, and the next canary is sent."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        model: str,
        stop: threading.Event,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """Record for the tenant that serves ``model``."""
        self._sessions = sessions
        self._tenant = tenant
        self._model = model
        self._stop = stop

    def add(self, canary: Canary, result: Result) -> None:
        """Record a result, unless the runner was told to stop and may not have waited for it."""
        if self._stop.is_set():
            return
        run = runs.NewRun(
            model=self._model,
            concept=canary.concept,
            kind=canary.kind,
            outcome=result.outcome,
            lost_at=result.lost_at,
        )
        try:
            with session_of(self._sessions, self._tenant) as session:
                runs.add(session, run)
                session.commit()
        except SQLAlchemyError as error:
            log.warning("canary_run_not_recorded", error_type=type(error).__name__)
