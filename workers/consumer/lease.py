"""Keep entries ours while they are worked on, however long that takes, until they are handed back."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import redis
import structlog

from workers.consumer.outage.progress import Progress
from workers.consumer.queue import Entry, Queue

log = structlog.get_logger()


class Lease:
    """What one loop holds of its queue; to be used from any thread."""

    def __init__(self, queue: Queue, progress: Progress, *, renewal_seconds: float) -> None:
        """Renew every ``renewal_seconds`` while ``progress`` is made: who hangs is to be replaced."""
        self._queue = queue
        self._progress = progress
        self._renewal_seconds = renewal_seconds
        self._lock = threading.Lock()
        self._is_over = False

    @contextmanager
    def held(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Renew for the length of the block."""
        done = threading.Event()
        ids = [entry.id for entry in entries]

        def beat() -> None:
            while not done.wait(self._renewal_seconds):
                try:
                    self._renew(ids)
                except redis.RedisError as error:
                    # Worst case: another worker decodes them as well, and stores nothing new.
                    log.warning("keep_alive_failed", error=repr(error))

        thread = threading.Thread(target=beat, name="keep-alive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def hand_back(self, deliveries: Mapping[bytes, int]) -> None:
        """Release entries as delivered so often, and renew nothing any more; raises redis.RedisError."""
        with self._lock:  # a renewal under way would have others wait for the idle time
            self._is_over = True
        self._queue.release(deliveries)

    def _renew(self, ids: Sequence[bytes]) -> None:
        with self._lock:
            if not self._is_over and not self._progress.is_stalled:
                self._queue.keep_alive(ids)
