"""The bounded hand-over of gathered rows from the engine's thread to the sender's thread."""

import threading
from collections import deque
from typing import NamedTuple

from subtext_sidecar.plugin.staging import Staged


class Row(NamedTuple):
    """What the host knows about one taken row."""

    request_id: str  # external
    position: int
    is_prefill: bool
    probability: float
    reason: str


class Batch(NamedTuple):
    """The taken rows of one step, with their tensors on the way to the host."""

    rows: list[Row]
    staged: Staged
    captured_at: float  # Unix seconds


class RowQueue:
    """Holds at most ``limit`` rows. The putting side never waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows = 0
        self._batches: deque[Batch] = deque()
        self._condition = threading.Condition()

    def has_room(self, rows: int) -> bool:
        """Tell whether that many rows fit; asked before their copy is paid for. One putting thread."""
        return self._rows + rows <= self._limit

    def put(self, batch: Batch) -> None:
        """Add a batch for which there is room."""
        with self._condition:
            self._batches.append(batch)
            self._rows += len(batch.rows)
            self._condition.notify()

    def get(self, timeout_seconds: float) -> Batch | None:
        """Return the oldest batch, or None when the time is over."""
        with self._condition:
            if not self._batches:
                self._condition.wait(timeout_seconds)
            if not self._batches:
                return None
            batch = self._batches.popleft()
            self._rows -= len(batch.rows)
            return batch

    def wake(self) -> None:
        """End a running ``get`` early."""
        with self._condition:
            self._condition.notify_all()
