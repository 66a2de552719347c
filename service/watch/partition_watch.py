"""How many days the store has made ahead, and whether rows lie in no day: of the catalogue, not of rows."""

import datetime as dt
import threading
from typing import Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from service.metrics import Metrics
from service.store import partitions
from service.store.engine import UnusableDatabaseError

_log: Final = structlog.get_logger(__name__)
_EVERY_SECONDS: Final = 60.0


class PartitionWatch:
    """Looks once a minute in a thread of its own."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="partition-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after a look that runs."""
        self._stop.set()
        self._thread.join(timeout=5)

    def look(self, today: dt.date) -> None:
        """Look once; while the database is away the metrics keep their last values."""
        try:
            with self._engine.connect() as connection:
                ahead = partitions.count_days_ahead(connection, today)
                in_no_day = partitions.default_bytes(connection)
        except (SQLAlchemyError, UnusableDatabaseError) as error:
            _log.debug("partitions_not_counted", error_type=type(error).__name__)
            return
        self._metrics.set_partitions(ahead, in_no_day)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look(dt.datetime.now(dt.UTC).date())
            self._stop.wait(_EVERY_SECONDS)
