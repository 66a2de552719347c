"""Every metric of `subtext log`. None is by tenant: who audits is nobody's business who watches."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector


class LogMetrics:
    """Counters since the start, and how far the log is behind."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        """Register everything, at 0 from the first scrape on."""
        ProcessCollector(namespace="subtext", registry=registry)
        self._clock = clock
        self.checked = clock()
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
            "Time since all that had a place was in a signed checkpoint",
            registry=registry,
        )
        age.set_function(lambda: self._clock() - self.checked)

    def note_checked(self) -> None:
        """Note that everything with a place is in a checkpoint now."""
        self.checked = self._clock()
