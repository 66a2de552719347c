"""How often a denial has an entry of its own: at most once a minute for one caller, operation and reason.

A client that is refused in a loop must not fill the log. What had no entry is counted in the next one.
"""

import datetime as dt
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.store.access.tables import Result

EVERY: Final = dt.timedelta(minutes=1)
_MOST_KINDS: Final = 10_000


class Denial(NamedTuple):
    """Denials that are entered together."""

    caller_id: uuid.UUID
    """Of the key or the session."""
    operation: str
    result: Result


@dataclass(slots=True)
class _Streak:
    entered_at: dt.datetime
    suppressed: int = 0


class Denials:
    """What one process refused lately. Of unknown callers it hears nothing: they belong to nobody."""

    def __init__(self) -> None:
        self._streaks: OrderedDict[Denial, _Streak] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, denial: Denial, now: dt.datetime) -> int | None:
        """Count one denial. Return how many had no entry when one is due, None when none is due."""
        with self._lock:
            streak = self._streaks.get(denial)
            if streak is not None and now < streak.entered_at + EVERY:
                streak.suppressed += 1
                return None
            self._streaks[denial] = _Streak(now)
            self._streaks.move_to_end(denial)
            if len(self._streaks) > _MOST_KINDS:
                self._streaks.popitem(last=False)
            return 0 if streak is None else streak.suppressed

    def undo(self, denial: Denial, suppressed: int) -> None:
        """Take back an entry that was due and could not be written: the next one counts it."""
        with self._lock:
            streak = self._streaks.get(denial)
            if streak is not None:
                streak.suppressed += suppressed + 1
