"""Metrics of the sidecar process that are not coverage counts (those are in capture_view)."""

from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from subtext_sidecar.record import RejectReason

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
            "Time to write one batch to the stream.",
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
            "Records that were not valid.",
            ["reason"],
            registry=registry,
        )
        for reason in get_args(RejectReason):
            self.dead_letters.labels(reason)
        self.invalid_messages = Counter(
            "subtext_sidecar_invalid_messages_total",
            "Socket messages that are not records and could not be read, by kind.",
            ["kind"],
            registry=registry,
        )
        self.redis_up = Gauge(
            "subtext_sidecar_redis_up", "1 while the last call to Redis worked.", registry=registry
        )
