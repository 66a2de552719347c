"""Every metric of `subtext log`. None is by tenant: who audits is nobody's business who watches."""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

_LOOKED_WITHIN_SECONDS: Final = 30.0
"""A look that is older says nothing of what waits now."""


class LogMetrics:
    """Counters since the start, and how far the log is behind."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        """Register everything, at 0 from the first scrape on."""
        ProcessCollector(namespace="subtext", registry=registry)
        self._clock = clock
        self._looked_at = clock()
        self._oldest = 0.0
        self.entries = Counter(
            "subtext_log_entries", "Entries that got a place in the evidence log", registry=registry
        )
        self.repeated = Counter(
            "subtext_log_entries_repeated",
            "Commitments that had a place already and got no second one",
            registry=registry,
        )
        self.checkpoints = Counter(
            "subtext_log_checkpoints", "Checkpoints that were signed and appended", registry=registry
        )
        self.failures = Counter(
            "subtext_log_failures",
            "Looks at the log that failed; the next one tries again",
            registry=registry,
        )
        self.pending = Gauge(
            "subtext_log_pending_entries",
            "Entries that wait for a place, at the last look",
            registry=registry,
        )
        age = Gauge(
            "subtext_log_checkpoint_age_seconds",
            "Age of the oldest entry that no signed checkpoint covers, 0 when none waits",
            registry=registry,
        )
        age.set_function(self._age)

    def note_look(self, pending: int, oldest: float) -> None:
        """Note how many entries wait for a place, and the age of the oldest unsigned one, 0 for none."""
        self.pending.set(pending)
        self._looked_at, self._oldest = self._clock(), oldest

    def _age(self) -> float:
        # While the store is away, or a look hangs, entries may wait that nobody has seen.
        since = self._clock() - self._looked_at
        return self._oldest + since if self._oldest or since > _LOOKED_WITHIN_SECONDS else 0.0
