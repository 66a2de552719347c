"""When capture may try again after an error. Pure: the caller gives the time.

A circuit breaker: closed while capture is on; open, for a pause, after an error. The pause doubles from
error to error, so that a fault which stays costs serving next to nothing, and begins small again after
an hour without one.
"""

from typing import Final

FIRST_PAUSE_SECONDS: Final = 30.0
LONGEST_PAUSE_SECONDS: Final = 600.0
CALM_SECONDS: Final = 3600.0
_NEVER: Final = float("inf")


class Breaker:
    """Starts closed. ``now`` is in monotonic seconds and never falls. One thread at a time changes it."""

    def __init__(self) -> None:
        self.due = _NEVER  # when an open breaker may be closed; any thread may read it
        self._pause = FIRST_PAUSE_SECONDS
        self._failed_at = -_NEVER

    @property
    def is_open(self) -> bool:
        """Tell whether capture is to be off."""
        return self.due != _NEVER

    def is_due(self, now: float) -> bool:
        """Tell whether it is open and its pause is over."""
        return now >= self.due

    def trip(self, now: float) -> float:
        """Open after an error; return the seconds until it is due.

        An error within the pause is one more of what opened it and changes nothing.
        """
        calm = now - self._failed_at >= CALM_SECONDS
        self._failed_at = now
        if now < self.due < _NEVER:
            return self.due - now
        if calm:
            self._pause = FIRST_PAUSE_SECONDS
        pause = self._pause
        self.due = now + pause
        self._pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause

    def close(self) -> None:
        """Say that capture is on again."""
        self.due = _NEVER
