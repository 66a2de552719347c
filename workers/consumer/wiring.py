"""Build a worker's parts from its settings. Everything is passed on; nothing is global."""

import contextlib
import datetime as dt
import math
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import redis
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from service.store import engine as store_engine
from service.store import migrate
from service.store.configuration import write as stored_configurations
from service.store.write import concepts as stored_concepts
from service.store.write import decoders
from subtext_sidecar.anomaly.reference import digest
from subtext_sidecar.anomaly.score import Detector, Reference
from subtext_sidecar.contract import streams
from subtext_sidecar.contract.configuration import Configuration
from subtext_sidecar.contract.counters import Hop
from workers.consumer.configuration import Running, configurations
from workers.consumer.health import HealthServer
from workers.consumer.intake import COVERAGE_QUEUE, CoverageIntake
from workers.consumer.loop import Checkpoint, LoopSettings, WorkerLoop
from workers.consumer.metrics import WorkerMetrics
from workers.consumer.outage import known_vector
from workers.consumer.outage.progress import Progress
from workers.consumer.queue import QueueSettings, StreamQueue
from workers.consumer.side.configuration_reports import ConfigurationReports
from workers.consumer.side.discovery_watch import DiscoveryWatch
from workers.consumer.side.gauges import Gauges
from workers.consumer.side.incident_repair import IncidentRepair
from workers.consumer.side.old_stream import OldStream
from workers.consumer.targets import Targets
from workers.errors import STORE_ERRORS, is_outage
from workers.judge import anomalies, probes
from workers.judge.calibration import InForce, Loaded, RejectedReason, put_in_force
from workers.judge.calibration import load as load_calibration
from workers.judge.concepts import Concept, ConceptSet, load_concepts
from workers.judge.embedder import Embedder, MiniLmEmbedder
from workers.judge.judge import Judge
from workers.judge.matching import ConceptMatcher
from workers.judge.policy import JudgePolicy
from workers.judge.request_anomalies import RequestNull
from workers.judge.windows import RequestTester, WindowPlan
from workers.nla.decoder import Decoder, DecoderIdentity
from workers.settings import WorkerSettings
from workers.vectors.keeper import VectorKeeper

log = structlog.get_logger()
_RETRY_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class Parts:
    """A worker before and after its decoder is there."""

    settings: WorkerSettings
    stop: threading.Event
    database: Engine
    redis: redis.Redis
    queue: StreamQueue = field(init=False)  # of the decoder's model and layer: from `connect` on
    old_stream: OldStream = field(init=False)  # from `connect` on
    discoveries: DiscoveryWatch = field(init=False)  # from `connect` on
    incident_repair: IncidentRepair = field(init=False)  # from `connect` on
    configuration: ConfigurationReports = field(init=False)  # from `connect` on
    targets: Targets = field(init=False)  # likewise
    metrics: WorkerMetrics
    gauges: Gauges
    intake: CoverageIntake
    health: HealthServer
    concepts: ConceptSet
    calibration: Loaded | None  # of the concepts; None without a file
    warm: threading.Event  # set while the decoder reads: from its first vector on
    progress: Progress
    version: str  # of this program

    def check_stores(self) -> None:
        """Raise UnusableDatabaseError or UnusableQueueError; a store that is away tells nothing yet."""
        for check in (
            StreamQueue(self.redis, COVERAGE_QUEUE).check_server,
            lambda: store_engine.ping(self.database),
        ):
            with contextlib.suppress(*STORE_ERRORS):
                check()

    def connect(
        self,
        decoder: Decoder,
        anomaly: Reference | None,
        *,
        embedder: Embedder | None = None,
        reached: Callable[[Checkpoint], None] = lambda _: None,
    ) -> WorkerLoop | None:
        """Register the decoder and return the loop; None when told to stop while the store was away.

        ``anomaly`` None: no anomalies are told. Raises ValueError when the store knows a tenant's model
        with another width, a concept's version with another definition, or the anomaly reference or a probe
        is of other vectors.
        """
        if anomaly is not None:
            identity = decoder.identity
            models = {identity.model, self.settings.served_model or identity.model}
            anomalies.check_fits(anomaly, models=models, layer=identity.layer, d_model=identity.d_model)
        self._check_probes(decoder.identity)
        in_force = put_in_force(self.concepts, self.calibration, decoder.identity)
        judge = Judge(
            concepts=self.concepts,
            in_force=in_force,
            matcher=ConceptMatcher(self.concepts, embedder or MiniLmEmbedder(), in_force.thresholds),
            detector=None if anomaly is None else Detector(anomaly),
            policy=JudgePolicy(),
        )
        running = Running(
            settings=self.settings,
            version=self.version,
            decoder=decoder.identity,
            concepts=self.concepts,
            calibration=self.calibration,
            in_force=in_force,
            anomaly=anomaly,
            policy=judge.policy,
        )
        targets = self._register(decoder, configurations(running))
        if targets is None:
            return None
        self._warm_up(decoder, judge, targets.model)
        self._tell_calibration(in_force, targets.model, str(decoder.identity.layer))
        self._open_queues(targets.model, decoder.identity.layer)
        self.discoveries = self._watch(targets, decoder.identity.layer, anomaly, judge.policy)
        self.incident_repair = IncidentRepair(
            store_engine.session_factory(self.database),
            targets.known,
            self.metrics,
            model=targets.model,
            anomaly_p_value=judge.verdicts().anomaly_p_value,
        )
        return WorkerLoop(
            queue=self.queue,
            decoder=decoder,
            judge=judge,
            sessions=store_engine.session_factory(self.database),
            targets=targets,
            metrics=self.metrics,
            settings=LoopSettings(
                batch=self.settings.batch_entries,
                max_deliveries=self.settings.max_deliveries,
                keep_alive_seconds=self.settings.reclaim_idle_seconds / 4,
                decoder_recovery_seconds=self.settings.decoder_recovery_seconds,
            ),
            stop=self.stop,
            warm=self.warm,
            progress=self.progress,
            vectors=self._keep_vectors(targets.model),
            reached=reached,
        )

    def _keep_vectors(self, model: str) -> VectorKeeper | None:
        keeping = self.settings.keeping
        if keeping is None:
            return None
        self.metrics.start_vectors(model)
        return VectorKeeper(keeping, model=model)

    def _check_probes(self, identity: DecoderIdentity) -> None:
        probes.check_fit(
            self.concepts.probes.values(),
            models={identity.model, self.settings.served_model or identity.model},
            layer=identity.layer,
            d_model=identity.d_model,
        )

    def _open_queues(self, model: str, layer: int) -> None:
        idle_ms = int(self.settings.reclaim_idle_seconds * 1000)
        own = QueueSettings(stream=streams.activations_stream(model, layer), idle_ms=idle_ms)
        old = QueueSettings(stream=streams.OLD_ACTIVATIONS_STREAM, idle_ms=idle_ms)
        self.queue = StreamQueue(self.redis, own)
        self.old_stream = OldStream(
            self.redis,
            StreamQueue(self.redis, old),
            own.stream,
            model=model,
            sessions=store_engine.session_factory(self.database),
        )
        for names in (own, old):
            self.gauges.add(names, StreamQueue(self.redis, names))
        self.metrics.start_dead_letters(own.stream)
        self.metrics.start_readings(model)

    def _watch(
        self, targets: Targets, layer: int, anomaly: Reference | None, policy: JudgePolicy
    ) -> DiscoveryWatch:
        settings = self.settings
        plan = WindowPlan(
            fdr=settings.anomaly_fdr,
            length=dt.timedelta(seconds=settings.anomaly_window_seconds),
            least_requests=settings.anomaly_window_requests,
            settle=dt.timedelta(seconds=settings.anomaly_settle_seconds),
        )
        return DiscoveryWatch(
            sessions=store_engine.session_factory(self.database),
            targets=targets.known,
            tester=None if anomaly is None else _tester(anomaly, plan),
            plan=plan,
            metrics=self.metrics,
            labels=(targets.model, str(layer)),
            anomaly_p_value=policy.anomaly_p_value,
        )

    def report_configuration(self) -> None:
        """Tell every tenant that is known what this worker runs, until told to stop."""
        self.configuration.run(self.stop, store_engine.session_factory(self.database), self._tenants)

    def end_configuration(self) -> None:
        """Tell them that it ends, once nothing is stored any more that names it."""
        self.configuration.end(store_engine.session_factory(self.database), self._tenants())

    def _tenants(self) -> list[str]:
        return [target.tenant for target in self.targets.known()]

    def close(self) -> None:
        """Let go of everything."""
        self.health.close()
        self.redis.close()
        self.database.dispose()

    def _register(self, decoder: Decoder, runs: Sequence[Configuration]) -> Targets | None:
        """Register the decoder, and what is in force from now on; of ``runs`` the last is the worker's."""
        identity = decoder.identity
        served = self.settings.served_model or identity.model
        source = f"worker-{uuid.uuid4().hex}"
        reports = [
            stored_configurations.Report(
                source=source, hop=Hop.WORKER, model=served, layer=identity.layer, configuration=one
            )
            for one in runs
        ]
        row = decoders.NewDecoder(
            model=served,
            d_model=identity.d_model,
            name=identity.name,
            digest=identity.digest,
            layer=identity.layer,
            fve_baseline=identity.fve_baseline,
            shuffled_fve_p95=identity.shuffled_fve_p95,
            calibration_n=identity.calibration_n,
            verified_above={str(kind): limit for kind, limit in identity.verified_above.items()},
            candidates=identity.candidates,
            card=identity.card,
        )
        watched = [_stored(one) for one in self.concepts.concepts]
        self.configuration = ConfigurationReports(reports)
        sessions = store_engine.session_factory(self.database)
        targets = Targets(sessions, row, watched, source=source, reports=self.configuration)
        while not self.stop.is_set():
            try:
                targets.start()
            except STORE_ERRORS as error:
                if not is_outage(error):
                    raise
                log.warning("store_away", error=repr(error))
                self.stop.wait(_RETRY_SECONDS)
            else:
                self.targets = targets
                return targets
        return None

    def _warm_up(self, decoder: Decoder, judge: Judge, model: str) -> None:
        """Read one vector that belongs to nobody, so that the first real one does not pay for it."""
        self.progress.beat()
        known_vector.read(decoder, judge)
        self.progress.beat()
        size = 0 if judge.detector is None else judge.detector.reference.calibration_n
        self.metrics.anomaly_calibration.labels(model).set(size)
        self.metrics.observe_incidents(model, [], [])  # from before the first one
        for concept in self.concepts.concepts:
            self.metrics.start_flags(model, concept.name, concept.severity)
        self.warm.set()

    def _tell_calibration(self, in_force: InForce, model: str, layer: str) -> None:
        made_at = 0.0 if in_force.made_at is None else in_force.made_at.timestamp()
        self.metrics.concept_calibration_made.labels(model, layer).set(made_at)
        for reason in RejectedReason:
            is_rejected = reason in in_force.rejected
            self.metrics.concept_calibration_rejected.labels(model, layer, reason).set(is_rejected)
        for name, rule in in_force.rules.items():
            self.metrics.concept_calibrated.labels(model, layer, name).set(rule.calibrated is not None)
            limit = self.metrics.concept_false_positive_limit.labels(model, layer, name, rule.severity)
            limit.set(math.nan if rule.calibrated is None else rule.calibrated.upper_limit)
        if in_force.rejected:
            log.warning(
                "concepts_not_calibrated",
                reasons=sorted(in_force.rejected),
                leads=[name for name, rule in in_force.rules.items() if rule.calibrated is None],
            )


def build(settings: WorkerSettings, stop: threading.Event, *, version: str) -> Parts:
    """Return the parts that need no decoder.

    Raises ConceptsError, ListeningError, or OSError when the port is taken.
    """
    concepts = load_concepts(settings.concepts_file)
    file = settings.concept_calibration_file
    calibration = None if file is None else load_calibration(file)
    database = store_engine.create_engine(settings.database, application_name="subtext-worker")
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        password=settings.redis_password,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
    )
    metrics = WorkerMetrics(CollectorRegistry(), version=version)
    warm = threading.Event()
    progress = Progress(settings.batch_deadline_seconds)
    health = HealthServer(
        settings.http_host,
        settings.http_port,
        metrics.registry,
        {
            "postgres": lambda: store_engine.ping_writable(database),
            "migrations": lambda: _require(migrate.is_at_head(database), "run `subtext migrate`"),
            "redis": StreamQueue(client, COVERAGE_QUEUE).ping,
            "decoder": lambda: _require(warm.is_set(), "still loading, or it reads nothing any more"),
        },
        lives=lambda: not progress.is_stalled,
        tls=settings.tls,
    )
    return Parts(
        settings=settings,
        stop=stop,
        database=database,
        redis=client,
        metrics=metrics,
        gauges=Gauges(metrics, {COVERAGE_QUEUE: StreamQueue(client, COVERAGE_QUEUE)}, database),
        intake=CoverageIntake(
            StreamQueue(client, COVERAGE_QUEUE), store_engine.session_factory(database), metrics
        ),
        health=health,
        concepts=concepts,
        calibration=calibration,
        warm=warm,
        progress=progress,
        version=version,
    )


def _tester(anomaly: Reference, plan: WindowPlan) -> RequestTester:
    null = RequestNull(anomaly.request_p_values, least_requests=plan.reference_requests)
    return RequestTester(null, digest(anomaly), plan)


def _stored(concept: Concept) -> stored_concepts.NewConcept:
    return stored_concepts.NewConcept(
        name=concept.name, version=concept.version, digest=concept.digest, definition=concept.content
    )


class NotReadyError(RuntimeError):
    """A part is not ready; the message says what is missing."""


def _require(is_ready: bool, hint: str) -> None:  # noqa: FBT001  # reads as a condition at every call
    if not is_ready:
        raise NotReadyError(hint)
