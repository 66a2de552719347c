"""Every metric of `subtext canary`."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from workers.calibrate.rates import upper_limit
from workers.canary.prompts import Canary, ConceptCanaries, Kind
from workers.canary.runner import HOPS, OUTCOMES, Result


class CanaryMetrics:
    """Counters since the start, and gauges over each concept's last runs that were read."""

    def __init__(
        self,
        registry: CollectorRegistry,
        model: str,
        concepts: Sequence[ConceptCanaries],
        window: int,
        *,
        longest_seconds: float,
        started: float,
    ) -> None:
        """Register everything, at 0 from the first scrape on.

        ``longest_seconds`` is how far two results may be apart; ``started`` is in Unix seconds.
        """
        ProcessCollector(namespace="subtext", registry=registry)
        self._model = model
        self._recent: defaultdict[tuple[str, Kind], deque[bool]] = defaultdict(lambda: deque(maxlen=window))
        self._runs = Counter(
            "subtext_canary_runs",
            "Canaries that were sent, by whether they were flagged with their concept, or not read",
            ["model", "concept", "kind", "outcome"],
            registry=registry,
        )
        self._lost = Counter(
            "subtext_canary_lost",
            "Canaries that count for no recall, by the hop that they did not pass",
            ["model", "hop"],
            registry=registry,
        )
        self._window_runs = Gauge(
            "subtext_canary_window_runs",
            "How many of each concept's last canaries were read: what its recall is a share of",
            ["model", "concept", "kind"],
            registry=registry,
        )
        self._window_flagged = Gauge(
            "subtext_canary_window_flagged",
            "How many of those were flagged with the concept: found where positive, false where negative",
            ["model", "concept", "kind"],
            registry=registry,
        )
        self._limit = Gauge(
            "subtext_canary_recall_upper_limit_ratio",
            "Upper limit of the concept's recall, one-sided with 95% confidence; 1 before there are runs",
            ["model", "concept"],
            registry=registry,
        )
        self._required = Gauge(
            "subtext_canary_recall_required_ratio",
            "Recall that the operator requires of the concept; no series where none is required",
            ["model", "concept"],
            registry=registry,
        )
        self._last = Gauge(
            "subtext_canary_last_run_timestamp_seconds",
            "When the last canary had a result; before the first, when the runner was started",
            ["model"],
            registry=registry,
        )
        self._last.labels(model).set(started)
        longest = Gauge(
            "subtext_canary_interval_limit_seconds",
            "How long it takes at most from one canary's result to the next, by the settings",
            ["model"],
            registry=registry,
        )
        longest.labels(model).set(longest_seconds)
        self._start(concepts)

    def _start(self, concepts: Iterable[ConceptCanaries]) -> None:
        for hop in HOPS:
            self._lost.labels(self._model, hop)
        for one in concepts:
            # Without a series to compare with, SubtextCanaryFailing does not fire.
            if one.required_recall is not None:
                self._required.labels(self._model, one.concept).set(one.required_recall)
            kinds: tuple[Kind, ...] = ("positive", "negative") if one.negative else ("positive",)
            for kind in kinds:
                for outcome in OUTCOMES:
                    self._runs.labels(self._model, one.concept, kind, outcome)
                self._show(one.concept, kind)

    def add(self, canary: Canary, result: Result, now: float) -> None:
        """Count a result; ``now`` is in Unix seconds."""
        self._runs.labels(self._model, canary.concept, canary.kind, result.outcome).inc()
        self._last.labels(self._model).set(now)
        if result.lost_at is not None:
            # Whether the decoder would have found it is not known.
            self._lost.labels(self._model, result.lost_at).inc()
            return
        self._recent[canary.concept, canary.kind].append(result.outcome == "flagged")
        self._show(canary.concept, canary.kind)

    def _show(self, concept: str, kind: Kind) -> None:
        recent = self._recent[concept, kind]
        self._window_runs.labels(self._model, concept, kind).set(len(recent))
        self._window_flagged.labels(self._model, concept, kind).set(sum(recent))
        if kind == "positive":
            self._limit.labels(self._model, concept).set(upper_limit(sum(recent), len(recent)))
