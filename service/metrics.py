"""What the service process measures. Labels are bounded: routes are templates, never paths."""

from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
AUTHENTICATION_FAILURES: Final = (
    "missing_key",
    "unknown_key",
    "revoked_key",
    "expired_key",
    "missing_scope",
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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
            "Requests that were refused for their API key, by the problem's code.",
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

    def observe_authentication_failure(self, code: str) -> None:
        """Count one refused request; ``code`` is one of `AUTHENTICATION_FAILURES`."""
        self._failures.labels(code).inc()

    def set_expiring_keys(self, count: int) -> None:
        """Show how many keys in use expire soon."""
        self._expiring_keys.set(count)

    def observe_request(self, *, route: str | None, method: str, code: int, seconds: float) -> None:
        """Count one answered request. ``route`` is the template, None when no route matched."""
        self._duration.labels(
            route=route or "unmatched", method=method if method in _METHODS else "OTHER", code=str(code)
        ).observe(seconds)

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)
