"""What the service measures of incidents, webhooks, open erasures and retention. Labels are bounded."""

import datetime as dt
from collections import Counter as Counted
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.incidents import precision
from service.retention.decisions import Asked
from service.retention.overdue import Overdue
from service.store.erasure.requests import Open
from service.store.outbox import Waiting
from service.store.read.incidents import Undecided
from service.store.read.precision import Labels, Watched

Outcome = Literal["delivered", "retried", "failed", "expired"]
_OUTCOMES: Final[tuple[Outcome, ...]] = ("delivered", "retried", "failed", "expired")


class IncidentMetrics:
    """The metrics in the given registry. What services share is told by each, so take the maximum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._undecided = Gauge(
            "subtext_incidents_undecided",
            "Incidents that are open or acknowledged.",
            ("model", "state", "severity"),
            registry=registry,
        )
        self._age = Gauge(
            "subtext_incident_oldest_open_age_seconds",
            "For how long the longest waiting open incident has been open.",
            ("model", "severity"),
            registry=registry,
        )
        self._labels = Gauge(
            "subtext_concept_labels",
            "Flags of each concept and layer by what triage said: of 30 days, of the detector that raised"
            " one last.",
            ("model", "layer", "concept", "label"),
            registry=registry,
        )
        self._precision = Gauge(
            "subtext_concept_precision_ratio",
            "Share of labelled flags that were confirmed, of the same flags, with its 95% interval; absent"
            " without labels.",
            ("model", "layer", "concept", "bound"),
            registry=registry,
        )
        self._deliveries = Counter(
            "subtext_webhook_deliveries_total",
            "Attempts to deliver a message, by how they ended.",
            ("destination", "outcome"),
            registry=registry,
        )
        self._waiting = Gauge(
            "subtext_webhook_pending_messages",
            "Messages that wait for a destination.",
            ("destination",),
            registry=registry,
        )
        self._waiting_age = Gauge(
            "subtext_webhook_oldest_pending_age_seconds",
            "Age of the oldest message that waits for a destination.",
            ("destination",),
            registry=registry,
        )

        self._erasures = Gauge(
            "subtext_erasures_open", "Requests for erasure that are not done.", registry=registry
        )
        self._erasure_age = Gauge(
            "subtext_erasure_oldest_open_age_seconds",
            "Age of the oldest request for erasure that is not done; 0 without one.",
            registry=registry,
        )
        self._removals = Gauge(
            "subtext_removals_asked",
            "Erasures, and periods by which more goes, that were ever asked for and had to wait.",
            ("kind",),
            registry=registry,
        )
        self._waiting_removals = Gauge(
            "subtext_removals_waiting",
            "Of them those to which somebody may still object, or which he may confirm.",
            ("kind",),
            registry=registry,
        )
        self._overdue = Gauge(
            "subtext_retention_overdue_seconds",
            "How far the oldest row that is under no legal hold is beyond its period; 0 where none is.",
            registry=registry,
        )
        self._last_run = Gauge(
            "subtext_retention_last_finished_timestamp_seconds",
            "When a retention run was finished last; 0 before the first.",
            registry=registry,
        )
        self._unfinished = Gauge(
            "subtext_retention_unfinished_runs",
            "Retention runs that have begun and are not finished.",
            registry=registry,
        )

    def show_destinations(self, names: Sequence[str]) -> None:
        """Show every outcome of every destination: a rate needs a value from before the first one."""
        for name in names:
            for outcome in _OUTCOMES:
                self._deliveries.labels(name, outcome)

    def observe_delivery(self, destination: str, outcome: Outcome, count: int = 1) -> None:
        """Count attempts that ended."""
        self._deliveries.labels(destination, outcome).inc(count)

    def set_waiting(self, waiting: Mapping[str, Waiting], now: dt.datetime) -> None:
        """Show what waits for each destination."""
        for name, found in waiting.items():
            self._waiting.labels(name).set(found.pending)
            self._waiting_age.labels(name).set(
                0 if found.oldest is None else (now - found.oldest).total_seconds()
            )

    def set_erasures(self, found: Sequence[Open], now: dt.datetime) -> None:
        """Show how many erasures of all tenants are open, and how old the oldest is."""
        asked = [one.oldest_at for one in found if one.oldest_at is not None]
        self._erasures.set(sum(one.open for one in found))
        self._erasure_age.set((now - min(asked)).total_seconds() if asked else 0)

    def set_removals(self, found: Iterable[Asked]) -> None:
        """Show how many removals of all tenants had to wait, and how many do."""
        ever, waiting = Counted[str](), Counted[str]()
        for one in found:
            ever[one.kind] += one.ever
            waiting[one.kind] += one.waiting
        for kind, count in ever.items():
            self._removals.labels(kind).set(count)
            self._waiting_removals.labels(kind).set(waiting[kind])

    def set_retention(self, found: Sequence[Overdue]) -> None:
        """Show how retention stands, of all tenants."""
        ended = [one.last_run_at for one in found if one.last_run_at is not None]
        self._overdue.set(max((one.beyond.total_seconds() for one in found), default=0))
        self._last_run.set(max(ended).timestamp() if ended else 0)
        self._unfinished.set(sum(one.unfinished for one in found))

    def set_undecided(self, found: Sequence[Undecided], now: dt.datetime) -> None:
        """Show how many incidents wait, and how long the oldest has."""
        self._undecided.clear()
        self._age.clear()
        for one in found:
            self._undecided.labels(one.model, one.state, one.severity).set(one.incidents)
            if one.waiting_since is not None:
                age = (now - one.waiting_since).total_seconds()
                self._age.labels(one.model, one.severity).set(age)

    def set_precision(self, counted: Mapping[Watched, Labels]) -> None:
        """Show the labels of each concept at each layer, with the precision that they tell."""
        self._labels.clear()
        self._precision.clear()
        for (model, layer, concept), found in counted.items():
            key = (model, str(layer), concept)
            unlabelled = found.raised - found.confirmed - found.dismissed
            parts = {"confirmed": found.confirmed, "dismissed": found.dismissed, "none": unlabelled}
            for label, count in parts.items():
                self._labels.labels(*key, label).set(count)
            measured = precision.measure(found.confirmed, found.dismissed)
            if measured is not None:
                for bound, value in measured._asdict().items():
                    self._precision.labels(*key, bound).set(value)
