"""What must be measured also while a batch is being decoded: backlog, and whether the stores answer."""

import threading

import redis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from service.store import engine as store_engine
from workers.metrics import WorkerMetrics
from workers.queue import Queue, QueueSettings

_EVERY_SECONDS = 2.0


class Gauges:
    """Measures on its own thread, on its own connections."""

    def __init__(
        self, metrics: WorkerMetrics, queue: Queue, settings: QueueSettings, database: Engine
    ) -> None:
        """Measure the stream and group of ``settings``, which are those that ``queue`` reads."""
        self._metrics = metrics
        self._queue = queue
        self._settings = settings
        self._database = database

    def run(self, stop: threading.Event) -> None:
        """Measure every two seconds until told to stop."""
        while not stop.is_set():
            self.measure()
            stop.wait(_EVERY_SECONDS)

    def measure(self) -> None:
        """Set every gauge once. While Redis is away the queue gauges keep their last value."""
        try:
            backlog = self._queue.backlog()
        except redis.RedisError:
            self._metrics.redis_up.set(0)
        else:
            stream = self._settings.stream
            self._metrics.redis_up.set(1)
            self._metrics.backlog.labels(stream).set(backlog.entries)
            self._metrics.pending.labels(stream, self._settings.group).set(backlog.pending)
            self._metrics.oldest_age_seconds.labels(stream).set(backlog.oldest_age_seconds)
        try:
            store_engine.ping(self._database)
        except SQLAlchemyError:
            self._metrics.postgres_up.set(0)
        else:
            self._metrics.postgres_up.set(1)
