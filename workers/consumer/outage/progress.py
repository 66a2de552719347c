"""Whether the loop still gets anywhere: what liveness tells, and what ends a process that hangs."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

_LOOK_EVERY_SECONDS = 1.0
_HUNG_STATUS = 3


class Progress:
    """A clock that the loop sets back with everything it does; waiting for a store is doing something."""

    def __init__(self, deadline_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``deadline_seconds`` is the longest time for one batch; before the first beat nothing is late."""
        self.deadline_seconds = deadline_seconds
        self._clock = clock
        self._beat_at: float | None = None

    def beat(self) -> None:
        """Say that something was done, or begins."""
        self._beat_at = self._clock()

    @property
    def late_seconds(self) -> float:
        """How long ago something should have been done; negative while there is time."""
        since = 0.0 if self._beat_at is None else self._clock() - self._beat_at
        return since - self.deadline_seconds

    @property
    def is_stalled(self) -> bool:
        """Whether the deadline is over."""
        return self.late_seconds > 0


class Watchdog(threading.Thread):
    """Ends the process some time after the deadline: nothing else can end a thread that hangs.

    Liveness fails as soon as the deadline is over, so an orchestrator that asks may be faster.
    """

    def __init__(
        self,
        progress: Progress,
        hand_back: Callable[[], None],
        *,
        grace_seconds: float = 30.0,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """``hand_back`` gives up the entries under way; it may fail, and it may not take long."""
        super().__init__(name="watchdog", daemon=True)
        self._progress = progress
        self._hand_back = hand_back
        self._grace_seconds = grace_seconds
        self._end = end
        self._done = threading.Event()

    def run(self) -> None:
        """Look every second until closed."""
        while not self._done.wait(min(_LOOK_EVERY_SECONDS, self._progress.deadline_seconds / 4)):
            if self._progress.late_seconds > self._grace_seconds:
                log.error("loop_hangs", deadline_seconds=self._progress.deadline_seconds)
                faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
                try:
                    self._hand_back()
                except Exception as error:  # noqa: BLE001  # whatever it is, the process has to end
                    log.warning("hand_back_failed", error=repr(error))
                self._end(_HUNG_STATUS)
                return

    def close(self) -> None:
        """Stop looking."""
        self._done.set()
        if self.is_alive():
            self.join(timeout=5)
