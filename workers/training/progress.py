"""Progress lines with the remaining time, for steps that take minutes."""

import time
from collections.abc import Callable

_EVERY_SECONDS = 10.0


class Progress:
    """Logs at most one line every ten seconds."""

    def __init__(self, title: str, *, total: int, log: Callable[[str], None], done: int = 0) -> None:
        """`done` of the `total` units were finished before this start."""
        self._title = title
        self._total = total
        self._done = done
        self._log = log
        self._started = time.monotonic()
        self._last = self._started

    def advance(self, done: int, note: str = "") -> None:
        """Report that `done` of the units are finished."""
        now = time.monotonic()
        if now - self._last < _EVERY_SECONDS and done < self._total:
            return
        self._last = now
        left = (now - self._started) / max(done - self._done, 1) * (self._total - done)
        self._log(f"{self._title}: {done}/{self._total}, {left:.0f} s left {note}".rstrip())
