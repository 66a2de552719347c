"""Every metric of `subtext keeper`. `task` is the name of a job; Prometheus has its own use for `job`."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

OUTCOMES: Final = ("done", "unfinished", "failed")
_BUCKETS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)


class UnfinishedError(RuntimeError):
    """A job did some of its work, harms nobody, and is to be tried again."""


class KeeperMetrics:
    """What jobs did since the start."""

    def __init__(self, registry: CollectorRegistry, jobs: Iterable[str]) -> None:
        """Register everything, at 0 from the first scrape on."""
        ProcessCollector(namespace="subtext", registry=registry)
        self._runs = Counter(
            "subtext_keeper_runs",
            "Runs of a job that ended; one that failed is tried again",
            ["task", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "subtext_keeper_run_seconds",
            "How long a run of a job took",
            ["task"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._done_at = Gauge(
            "subtext_keeper_last_done_timestamp_seconds",
            "When a job last ended well; 0 before it did since the start",
            ["task"],
            registry=registry,
        )
        self.taken_up = Counter(
            "subtext_keeper_jobs_taken_up",
            "Jobs that were taken up again because the process that ran them is gone",
            registry=registry,
        )
        self.erasures_without_redis = Gauge(
            "subtext_keeper_erasures_without_redis",
            "Open requests for erasure that wait because SUBTEXT_REDIS_URL is not set; 0 where it is",
            registry=registry,
        )
        for job in jobs:
            self._seconds.labels(job)
            self._done_at.labels(job)
            for outcome in OUTCOMES:
                self._runs.labels(job, outcome)

    @contextmanager
    def run(self, job: str) -> Iterator[None]:
        """Count and time one run."""
        began = time.monotonic()
        outcome = "failed"
        try:
            yield
            outcome = "done"
            self._done_at.labels(job).set_to_current_time()
        except UnfinishedError:
            outcome = "unfinished"
            raise
        finally:
            self._runs.labels(job, outcome).inc()
            self._seconds.labels(job).observe(time.monotonic() - began)
