"""What the service process measures. Labels are bounded: routes are templates, never paths."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from service.store.access.tables import Action, Purpose

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
KEY_FAILURES: Final = ("missing_key", "unknown_key", "revoked_key", "expired_key", "missing_scope")
SESSION_FAILURES: Final = ("unknown_session", "revoked_session", "expired_session", "cross_origin")
AUTHENTICATION_FAILURES: Final = (*KEY_FAILURES, *SESSION_FAILURES, "failed_sign_in")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class PrevalenceSample(NamedTuple):
    """How common one concept is, by one decoder at one layer."""

    model: str
    concept: str
    layer: int
    decoder: str  # the first 12 digits of its digest
    estimate: float
    lower: float  # bound at all looks together
    calibrated_lower: float  # the same of the share with a calibrated flag
    requests: int


class _Prevalences(Collector):
    """The samples of the last refresh, all of one moment."""

    def __init__(self) -> None:
        self.samples: Sequence[PrevalenceSample] = ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        names = ("model", "concept", "layer", "decoder")
        estimate = GaugeMetricFamily(
            "subtext_concept_prevalence_ratio",
            "Estimated share of requests that are flagged with the concept; 0 without requests.",
            labels=names,
        )
        lower = GaugeMetricFamily(
            "subtext_concept_prevalence_lower_ratio",
            "Lower bound of that share, which holds however often one looks.",
            labels=names,
        )
        calibrated = GaugeMetricFamily(
            "subtext_concept_calibrated_prevalence_lower_ratio",
            "Lower bound of the share of requests with a calibrated flag, at every look.",
            labels=names,
        )
        requests = GaugeMetricFamily(
            "subtext_concept_prevalence_requests",
            "Judged requests of the random baseline that the share stands on.",
            labels=names,
        )
        for sample in self.samples:
            labels = (sample.model, sample.concept, str(sample.layer), sample.decoder)
            estimate.add_metric(labels, sample.estimate)
            lower.add_metric(labels, sample.lower)
            calibrated.add_metric(labels, sample.calibrated_lower)
            requests.add_metric(labels, sample.requests)
        yield from (estimate, lower, calibrated, requests)


class Metrics:
    """The service's metrics in the given registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        ProcessCollector(registry=registry)
        Gauge(
            "subtext_build_info",
            "Always 1; the labels tell what runs.",
            ("version", "process"),
            registry=registry,
        ).labels(version=version("subtext"), process="service").set(1)
        self._duration = Histogram(
            "subtext_api_request_duration_seconds",
            "Time from a request's arrival to the end of its response.",
            ("route", "method", "code"),
            buckets=_BUCKETS,
            registry=registry,
        )

        self._failures = Counter(
            "subtext_api_authentication_failures_total",
            "Requests refused for their API key or session, and failed sign-ins, by the problem's code.",
            ("code",),
            registry=registry,
        )
        for code in AUTHENTICATION_FAILURES:
            self._failures.labels(code)  # a rate needs a value from before the first one
        self._expiring_keys = Gauge(
            "subtext_api_keys_expiring",
            "API keys that were used within a day and expire within 14.",
            registry=registry,
        )

        self._days_ahead = Gauge(
            "subtext_store_days_ahead",
            "Days from tomorrow on, without a gap, that the store has partitions for.",
            registry=registry,
        )
        self._default_partition = Gauge(
            "subtext_store_default_partition_bytes",
            "Size of the rows that lie in no day, by table; 0 when there are none.",
            ("table",),
            registry=registry,
        )

        self._text_reads = Counter(
            "subtext_api_text_reads_total",
            "Answers that showed text, by the purpose that was stated; each is in the access log.",
            ("purpose",),
            registry=registry,
        )
        for purpose in Purpose:
            self._text_reads.labels(purpose)
        self._access_not_logged = Counter(
            "subtext_api_access_log_failures_total",
            "Entries of the access log that could not be written; a read without one was not answered.",
            ("action",),
            registry=registry,
        )
        for action in Action:
            self._access_not_logged.labels(action)

        self._prevalences = _Prevalences()
        registry.register(self._prevalences)
        self._prevalence_thresholds = Gauge(
            "subtext_concept_prevalence_threshold_ratio",
            "Share of requests above which the concept raises an alert, where one is set.",
            ("concept",),
            registry=registry,
        )
        self._prevalence_refreshed = Gauge(
            "subtext_concept_prevalence_refreshed_timestamp_seconds",
            "When the prevalences were last worked out; 0 before the first time.",
            registry=registry,
        )

    def set_prevalence_thresholds(self, thresholds: Mapping[str, float]) -> None:
        """Show the thresholds, by concept."""
        for concept, share in thresholds.items():
            self._prevalence_thresholds.labels(concept).set(share)

    def set_prevalences(self, samples: Sequence[PrevalenceSample], now: dt.datetime) -> None:
        """Show these samples in place of all earlier ones."""
        self._prevalences.samples = samples
        self._prevalence_refreshed.set(now.timestamp())

    def observe_authentication_failure(self, code: str) -> None:
        """Count one refused request; ``code`` is one of `AUTHENTICATION_FAILURES`."""
        self._failures.labels(code).inc()

    def observe_text_read(self, purpose: Purpose) -> None:
        """Count one answer that shows text."""
        self._text_reads.labels(purpose).inc()

    def observe_access_not_logged(self, action: Action) -> None:
        """Count one entry of the access log that could not be written."""
        self._access_not_logged.labels(action).inc()

    def set_expiring_keys(self, count: int) -> None:
        """Show how many keys in use expire soon."""
        self._expiring_keys.set(count)

    def set_partitions(self, days_ahead: int, default_bytes: Mapping[str, int]) -> None:
        """Show how many days are made ahead, and by table what lies in none."""
        self._days_ahead.set(days_ahead)
        for table, size in default_bytes.items():
            self._default_partition.labels(table).set(size)

    def observe_request(self, *, route: str | None, method: str, code: int, seconds: float) -> None:
        """Count one answered request. ``route`` is the template, None when no route matched."""
        self._duration.labels(
            route=route or "unmatched", method=method if method in _METHODS else "OTHER", code=str(code)
        ).observe(seconds)

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)
