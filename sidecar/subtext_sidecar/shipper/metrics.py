"""Metrics of the sidecar process that are not coverage counts (those are in capture_view)."""

from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from subtext_sidecar.contract.counters import RejectReason
from subtext_sidecar.screen.screening import Verdict
from subtext_sidecar.screen.thinning import Rates

_SHIP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class SidecarMetrics:
    """One instance a process, on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        build = Gauge(
            "subtext_build_info", "1, with the version.", ["version", "revision"], registry=registry
        )
        build.labels(version("subtext-sidecar"), "").set(1)
        self.ship_seconds = Histogram(
            "subtext_ship_duration_seconds",
            "Time that the loop spends on sending a batch to the stream and on waiting for it.",
            buckets=_SHIP_BUCKETS,
            registry=registry,
        )
        self.ship_errors = Counter(
            "subtext_ship_errors_total", "Failed writes to Redis, by stream.", ["stream"], registry=registry
        )
        self.buffer_bytes = Gauge(
            "subtext_sidecar_buffer_bytes", "Payload of records that wait for Redis.", registry=registry
        )
        self.backlog = Gauge(
            "subtext_stream_backlog_entries",
            "Entries in the stream, which readers delete when they settle them.",
            ["stream"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "subtext_stream_dead_letters_total",
            "Blocks or single rows that were not valid.",
            ["reason"],
            registry=registry,
        )
        for reason in RejectReason:
            self.dead_letters.labels(reason)
        self.dead_letters_trimmed = Counter(
            "subtext_dead_letters_trimmed_total",
            "Older dead letters that their stream had no room for.",
            ["stream", "reason"],
            registry=registry,
        )
        self.invalid_messages = Counter(
            "subtext_sidecar_invalid_messages_total",
            "Socket messages that are not blocks and could not be read, by kind.",
            ["kind"],
            registry=registry,
        )
        self.redis_up = Gauge(
            "subtext_sidecar_redis_up", "1 while the last call to Redis worked.", registry=registry
        )
        self.screen_rows = Counter(
            "subtext_screen_rows_total",
            "Received rows by what the screen says of them.",
            ["model", "verdict"],
            registry=registry,
        )
        self.keep = Gauge(
            "subtext_screen_keep_ratio",
            "Share of requests that passes now: of all (baseline), and for rows that the screen found.",
            ["model", "part"],
            registry=registry,
        )
        self.policy_errors = Counter(
            "subtext_policy_errors_total", "Policy files that were refused.", registry=registry
        )
        self.policy_applied = Gauge(
            "subtext_policy_applied",
            "1 while the plugin follows the policy that the sidecar publishes.",
            ["model"],
            registry=registry,
        )

    def show_rates(self, model: str, rates: Rates) -> None:
        """Show the keep rates in force."""
        for verdict in get_args(Verdict):
            self.screen_rows.labels(model, verdict)
        self.keep.labels(model, "baseline").set(rates.baseline)
        self.keep.labels(model, "found").set(rates.found)

    def show_policy(self, model: str, published: str | None, followed: str) -> None:
        """Show whether the plugin has taken over what was published."""
        if published is not None:
            self.policy_applied.labels(model).set(published == followed)
