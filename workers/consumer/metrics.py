"""Every metric of a worker process."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from service.store.tables import FlagStatus
from service.store.write.incidents import IncidentChange
from subtext_sidecar.contract import dead_letters, streams
from workers.judge.windows import Readiness
from workers.vectors.keeper import KeptBatch, SkipReason

_RATIOS = tuple(step / 20 for step in range(21))
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)


class WorkerMetrics:
    """Counters, gauges and histograms on one registry. Labels are bounded; no ids, no text.

    ``model`` is the served name, as on the records and at the other processes, never the decoder's own.
    ``selection`` is "baseline" for what was taken at random and "screen" for what only the screen
    chose: that is strange by choice, so shares and distributions of traffic are those of the baseline.
    """

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        """Register everything; a second instance needs its own registry."""
        self.registry = registry
        ProcessCollector(namespace="subtext", registry=registry)
        build = Gauge("subtext_build_info", "1, labelled with the version", ["version"], registry=registry)
        build.labels(version).set(1)
        self.stored = Counter(
            "subtext_explanations_stored",
            "Explanations committed, by whether they beat shuffled pairs",
            ["model", "layer", "status", "selection", "position_class"],
            registry=registry,
        )
        self.canary_readings = Counter(
            "subtext_canary_readings_stored",
            "Readings of canaries committed, which no other metric of readings counts",
            ["model"],
            registry=registry,
        )
        self.vectors = Counter(
            "subtext_vectors_stored",
            "Vectors kept to be read again, sealed",
            ["model"],
            registry=registry,
        )
        self.vector_bytes = Counter(
            "subtext_vectors_stored_bytes",
            "Bytes of the vectors that were kept, before they were sealed",
            ["model"],
            registry=registry,
        )
        self.vectors_skipped = Counter(
            "subtext_vectors_skipped",
            "Vectors that were to be kept and were not, while their readings were stored",
            ["model", "reason"],
            registry=registry,
        )
        self.fve = Histogram(
            "subtext_explanation_fve_ratio",
            "Fraction of variance explained by each stored explanation; below 0 counts in the first bucket",
            ["model", "layer", "selection"],
            buckets=_RATIOS,
            registry=registry,
        )
        self.fve_beyond_token = Histogram(
            "subtext_explanation_fve_beyond_token_ratio",
            "Share of what the token's mean leaves open that each stored explanation explains; as above",
            ["model", "layer", "selection"],
            buckets=_RATIOS,
            registry=registry,
        )
        self.cosine = Histogram(
            "subtext_explanation_cosine_ratio",
            "Cosine of each vector with the one rebuilt from its explanation",
            ["model", "layer", "selection"],
            buckets=_RATIOS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "subtext_decode_duration_seconds",
            "Time to verbalize and reconstruct one batch",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "subtext_decode_batch_size",
            "Activations in one decoded batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.latency_seconds = Histogram(
            "subtext_pipeline_latency_seconds",
            "From capture inside vLLM to commit in the store",
            ["model"],
            buckets=(0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500),
            registry=registry,
        )
        self.flags = Counter(
            "subtext_concept_flags",
            "Flags raised, once a request and concept, by whether their false-positive rate is known",
            ["model", "concept", "severity", "status"],
            registry=registry,
        )
        self.incident_events = Counter(
            "subtext_incident_events",
            "Incidents that findings opened, reopened or added to, with their severity after it",
            ["model", "kind", "severity"],
            registry=registry,
        )
        self.incident_failures = Counter(
            "subtext_incident_failures",
            "Attempts to write an incident that failed, while its explanations and flags were stored",
            ["model"],
            registry=registry,
        )
        self.concept_calibrated = Gauge(
            "subtext_concept_calibrated",
            "Whether the false-positive rate of the concept's flags is known; otherwise they are leads",
            ["model", "layer", "concept"],
            registry=registry,
        )
        self.concept_false_positive_limit = Gauge(
            "subtext_concept_false_positive_limit_ratio",
            "Upper limit of the share of benign requests that the concept flags; NaN while it is not known",
            ["model", "layer", "concept", "severity"],
            registry=registry,
        )
        self.concept_calibration_made = Gauge(
            "subtext_concept_calibration_made_timestamp_seconds",
            "When the concept calibration in force was made; 0 without one",
            ["model", "layer"],
            registry=registry,
        )
        self.concept_calibration_rejected = Gauge(
            "subtext_concept_calibration_rejected",
            "Whether the concept calibration, or the part of a changed concept, is not in force, by reason",
            ["model", "layer", "reason"],
            registry=registry,
        )
        self.anomalies = Counter(
            "subtext_anomaly_activations",
            "Activations with a conformal p-value at or below the policy's threshold",
            ["model", "detector", "selection"],
            registry=registry,
        )
        self.anomaly_p_value = Histogram(
            "subtext_anomaly_p_value_ratio",
            "Conformal p-values; uniform for the baseline while traffic resembles the calibration's",
            ["model", "selection"],
            buckets=_RATIOS[1:],
            registry=registry,
        )
        self.anomaly_calibration = Gauge(
            "subtext_anomaly_calibration_size",
            "Calibration vectors behind each p-value, whose floor is 1 / (size + 1)",
            ["model"],
            registry=registry,
        )
        self.requests_tested = Counter(
            "subtext_anomaly_requests_tested",
            "Requests that were tested for being anomalies, each once in its window",
            ["model", "layer"],
            registry=registry,
        )
        self.request_discoveries = Counter(
            "subtext_anomaly_request_discoveries",
            "Those of them that are anomalies at the window's false discovery rate",
            ["model", "layer"],
            registry=registry,
        )
        self.request_tests_ready = Gauge(
            "subtext_anomaly_request_tests_ready",
            "Whether the anomaly reference can tell requests apart at the asked rate, or why not",
            ["model", "layer", "reason"],
            registry=registry,
        )
        self.disputed = Counter(
            "subtext_anomaly_disputes",
            "Rows that the screen measured otherwise: sidecar and worker have different references",
            ["model"],
            registry=registry,
        )
        self.redeliveries = Counter(
            "subtext_stream_redeliveries", "Entries that had been delivered before", registry=registry
        )
        self.dead_letters = Counter(
            "subtext_stream_dead_letters",
            "Entries moved to a dead-letter stream, by the stream that they came from",
            ["stream", "reason"],
            registry=registry,
        )
        self.start_dead_letters(streams.COVERAGE_STREAM)
        self.dead_letters_trimmed = Counter(
            "subtext_dead_letters_trimmed",
            "Older dead letters that their stream had no room for, by the stream that they came from",
            ["stream", "reason"],
            registry=registry,
        )
        self.dead_letter_fill = Gauge(
            "subtext_dead_letter_fill_ratio",
            "How full each dead-letter stream is; at 1 its oldest letters are trimmed",
            ["stream", "writer", "reason"],
            registry=registry,
        )
        self.trimmed = Counter(
            "subtext_stream_trimmed_pending",
            "Entries that the stream lost while a dead worker held them; the sidecar counts what it trims",
            registry=registry,
        )
        self.duplicates = Counter(
            "subtext_activations_duplicate", "Deliveries of a sample already explained", registry=registry
        )
        self.failures = Counter(
            "subtext_worker_failures", "Failed attempts, by kind", ["kind"], registry=registry
        )
        self.backlog = Gauge(
            "subtext_stream_backlog_entries", "Entries not settled yet", ["stream"], registry=registry
        )
        self.pending = Gauge(
            "subtext_stream_pending_entries",
            "Entries delivered and not settled",
            ["stream", "group"],
            registry=registry,
        )
        self.oldest_age_seconds = Gauge(
            "subtext_stream_oldest_unsettled_age_seconds",
            "Age of the oldest entry not settled yet",
            ["stream"],
            registry=registry,
        )
        self.redis_up = Gauge("subtext_redis_up", "Whether Redis answered last", registry=registry)
        self.postgres_up = Gauge(
            "subtext_postgres_up", "Whether PostgreSQL answered last", registry=registry
        )
        self.decoder_trusted = Gauge(
            "subtext_decoder_trusted",
            "Whether the decoder has a calibration and reads as it did then; otherwise nothing is verified",
            ["model", "layer"],
            registry=registry,
        )
        self.decoder_health = Gauge(
            "subtext_decoder_health_ratio",
            "What each check measured over the last readings of the baseline",
            ["model", "layer", "check"],
            registry=registry,
        )
        self.decoder_health_failed = Gauge(
            "subtext_decoder_health_failed",
            "Whether the check is bad: why a calibrated decoder is not trusted",
            ["model", "layer", "check"],
            registry=registry,
        )

    # An alert on an increase sees the first event only when the counter was there before it, at 0.

    def start_dead_letters(self, stream: str) -> None:
        """Show the dead letters of a stream from before the first one."""
        for reason in dead_letters.REASONS:
            self.dead_letters.labels(stream, reason)

    def start_request_tests(self, model: str, layer: str, readiness: str) -> None:
        """Show tests of requests from before the first one, and whether there will be any."""
        self.requests_tested.labels(model, layer)
        self.request_discoveries.labels(model, layer)
        self.request_tests_ready.labels(model, layer, readiness).set(readiness == Readiness.READY)

    def observe_incidents(
        self, model: str, changes: Sequence[IncidentChange], errors: Sequence[str]
    ) -> None:
        """Count what became of incidents."""
        for change in changes:
            self.incident_events.labels(model, change.kind, change.severity).inc()
        self.incident_failures.labels(model).inc(len(errors))

    def start_readings(self, model: str) -> None:
        """Show the readings of a model's canaries from before the first one."""
        self.canary_readings.labels(model)

    def start_flags(self, model: str, concept: str, severity: str) -> None:
        """Show the flags of a concept from before the first one."""
        for status in FlagStatus:
            self.flags.labels(model, concept, severity, status)

    def start_vectors(self, model: str) -> None:
        """Show zeros until a vector is kept; nothing of them is shown where none is to be."""
        self.vectors.labels(model)
        self.vector_bytes.labels(model)
        for reason in SkipReason:
            self.vectors_skipped.labels(model, reason)

    def observe_vectors(self, model: str, kept: KeptBatch) -> None:
        """Count what was kept of a batch, and what should have been."""
        if kept.vectors:
            self.vectors.labels(model).inc(kept.vectors)
            self.vector_bytes.labels(model).inc(kept.bytes)
        if kept.reason is not None:
            self.vectors_skipped.labels(model, kept.reason).inc(kept.skipped)
