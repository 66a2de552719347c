"""What must be measured also while a batch is being decoded: backlog, and whether the stores answer."""

import threading
from collections.abc import Mapping

import redis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from service.store import engine as store_engine
from workers.consumer.metrics import WorkerMetrics
from workers.consumer.queue import Backlog, Queue, QueueSettings

_EVERY_SECONDS = 2.0


class Gauges:
    """Measures on its own thread, on its own connections."""

    def __init__(
        self, metrics: WorkerMetrics, queues: Mapping[QueueSettings, Queue], database: Engine
    ) -> None:
        """Measure each queue under the stream and group of its settings."""
        self._metrics = metrics
        self._queues = dict(queues)
        self._database = database
        self._filled: dict[str, set[tuple[str, str]]] = {}  # kinds of letters that were seen, by stream

    def add(self, settings: QueueSettings, queue: Queue) -> None:
        """Measure this one as well; before ``run``."""
        self._queues[settings] = queue

    def run(self, stop: threading.Event) -> None:
        """Measure every two seconds until told to stop."""
        while not stop.is_set():
            self.measure()
            stop.wait(_EVERY_SECONDS)

    def measure(self) -> None:
        """Set every gauge once. While Redis is away the queue gauges keep their last value."""
        try:
            for settings, queue in self._queues.items():
                self._show(settings, queue.backlog())
                self._show_dead_letters(settings.stream, queue.dead_letter_fill())
        except redis.RedisError:
            self._metrics.redis_up.set(0)
        else:
            self._metrics.redis_up.set(1)
        try:
            store_engine.ping(self._database)
        except SQLAlchemyError:
            self._metrics.postgres_up.set(0)
        else:
            self._metrics.postgres_up.set(1)

    def _show(self, settings: QueueSettings, backlog: Backlog) -> None:
        self._metrics.backlog.labels(settings.stream).set(backlog.entries)
        self._metrics.pending.labels(settings.stream, settings.group).set(backlog.pending)
        self._metrics.oldest_age_seconds.labels(settings.stream).set(backlog.oldest_age_seconds)

    def _show_dead_letters(self, stream: str, fill: Mapping[tuple[str, str], float]) -> None:
        filled = self._filled.setdefault(stream, set())
        filled.update(fill)  # a stream that was deleted is empty now
        for writer, reason in filled:
            ratio = fill.get((writer, reason), 0.0)
            self._metrics.dead_letter_fill.labels(stream, writer, reason).set(ratio)
