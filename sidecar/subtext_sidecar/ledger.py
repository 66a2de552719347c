"""The coverage ledger: cumulative counts by model and minute, for one process start.

Counts of one row all go to the minute in which it was captured, so that sums reconcile minute by
minute. A minute is handed out again after each change and, because a message may be lost on the
way, now and then without one: readers keep the largest value, so repeating is harmless.
"""

import secrets
import threading
from collections import Counter
from typing import Final

from subtext_sidecar.record import VERSION, CoverageCount, Hop

SECONDS_PER_MINUTE: Final = 60
_REPEAT_MINUTES: Final = 15
_KEEP_MINUTES: Final = 24 * 60


def new_source(hop: Hop) -> str:
    """Return a name that is unique for this process start."""
    return f"{hop}-{secrets.token_hex(8)}"


class Ledger:
    """Counts what happened; safe to use from several threads."""

    def __init__(self, *, source: str, hop: Hop) -> None:
        self.source = source
        self._hop = hop
        self._lock = threading.Lock()
        self._minutes: dict[tuple[str, int], Counter[str]] = {}
        self._changed: set[tuple[str, int]] = set()

    def add(self, model: str, minute: int, counter: str, count: int = 1) -> None:
        """Count ``count`` more of ``counter``."""
        key = (model, minute)
        with self._lock:
            self._minutes.setdefault(key, Counter())[counter] += count
            self._changed.add(key)

    def take_changed(self) -> list[CoverageCount]:
        """Return every minute that changed since it was last taken, oldest first."""
        with self._lock:
            keys = sorted(self._changed, key=lambda key: key[1])
            self._changed.clear()
            return [self._count(key) for key in keys]

    def put_back(self, count: CoverageCount) -> None:
        """Say that a taken count could not be sent; it is taken again."""
        with self._lock:
            if (count.model, count.minute) in self._minutes:
                self._changed.add((count.model, count.minute))

    def repeat(self, now_minute: int) -> None:
        """Mark the last minutes as changed, and forget those too old to be asked for."""
        with self._lock:
            for key in [key for key in self._minutes if key[1] < now_minute - _KEEP_MINUTES]:
                del self._minutes[key]
                self._changed.discard(key)
            self._changed.update(key for key in self._minutes if key[1] >= now_minute - _REPEAT_MINUTES)

    def _count(self, key: tuple[str, int]) -> CoverageCount:
        return CoverageCount(
            v=VERSION,
            source=self.source,
            hop=self._hop,
            model=key[0],
            minute=key[1],
            counts=dict(self._minutes[key]),
        )
