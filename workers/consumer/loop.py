"""The worker's loop: fetch, decode, judge, commit, settle. The only place in `workers` that commits.

Order is what makes it safe: rows are committed before their entries are settled, and every insert is
idempotent, so a crash between any two steps costs a second delivery and nothing else.
"""

import datetime as dt
import operator
import random
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import redis
import structlog
from sqlalchemy.orm import Session, sessionmaker

from service.store import identity
from service.store.tenants.sessions import session_of
from service.store.write import canaries, coverage, readings
from subtext_sidecar.anomaly.score import Places
from subtext_sidecar.contract.counters import (
    DEAD_LETTERED,
    DeadLetterReason,
    RejectReason,
    Stratum,
    WorkerCounter,
)
from workers.consumer import decoder_health, ledger, pipeline
from workers.consumer.lease import Lease
from workers.consumer.metrics import WorkerMetrics
from workers.consumer.outage import blame, known_vector
from workers.consumer.outage.known_vector import DecoderOutageError
from workers.consumer.outage.progress import Progress
from workers.consumer.queue import Batch, Burial, Entry, Queue
from workers.consumer.targets import Target, Targets
from workers.errors import STORE_ERRORS, UNUSABLE_STORES, PermanentError, is_outage
from workers.judge.judge import Judge
from workers.nla.decoder import Decoder, GivenFacts
from workers.vectors.keeper import Activation, KeptBatch, VectorKeeper

log = structlog.get_logger()

T = TypeVar("T")

Checkpoint = Literal["fetched", "decoded", "stored", "committed", "settled"]
"""Names of the moments between two steps, for tests that kill the process there."""

_LONGEST_BACKOFF_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """Limits of one loop."""

    batch: int = 16
    block_ms: int = 1000
    max_deliveries: int = 5
    keep_alive_seconds: float = 15.0
    first_backoff_seconds: float = 0.5
    decoder_recovery_seconds: float = 30.0


class WorkerLoop:
    """One worker: a queue on one side, a store on the other, a decoder and a judge between."""

    def __init__(
        self,
        *,
        queue: Queue,
        decoder: Decoder,
        judge: Judge,
        sessions: sessionmaker[Session],
        targets: Targets,
        metrics: WorkerMetrics,
        settings: LoopSettings,
        stop: threading.Event,
        warm: threading.Event,
        progress: Progress,
        vectors: VectorKeeper | None = None,
        reached: Callable[[Checkpoint], None] = lambda _: None,
    ) -> None:
        """``warm`` is set while the decoder reads; ``reached`` is called at each Checkpoint.

        ``vectors`` None: none is kept.
        """
        self._queue = queue
        self._decoder = decoder
        self._judge = judge
        self._sessions = sessions
        self._targets = targets
        self._model = targets.model
        self._metrics = metrics
        self._settings = settings
        self._stop = stop
        self._warm = warm
        self._progress = progress
        self._vectors = vectors
        self._lease = Lease(queue, progress, renewal_seconds=settings.keep_alive_seconds)
        self._reached = reached
        self._source = targets.source
        self._health = decoder_health.DecoderHealth(
            decoder_health.expected_beyond_token(decoder.identity.card)
        )
        self._tell_health()
        self._under_way: Sequence[Entry] = ()  # of the batch; settled ones too
        self._in_hands: Sequence[pipeline.Work] = ()  # that the decoder was given last
        self._has_proof = False  # the decoder read a known vector right before what it has in hands
        self._has_read = False  # anything real, since this process began

    def run(self) -> None:
        """Work until told to stop; the batch under way is finished first."""
        while not self._stop.is_set():
            self.step()

    def step(self) -> int:
        """Take one batch to its end; return how many entries it had. Waits out every outage of a store.

        Raises DecoderOutageError, or one of UNUSABLE_STORES; the batch is handed back then.
        """
        batch = self._waiting_out(self._fetch)
        if batch is None:
            return 0
        self._metrics.trimmed.inc(batch.trimmed)
        if not batch.entries:
            return 0
        self._metrics.redeliveries.inc(sum(entry.deliveries > 1 for entry in batch.entries))
        self._reached("fetched")
        self._under_way = batch.entries
        with self._lease.held(batch.entries):
            try:
                self._handle(batch.entries)
            except UNUSABLE_STORES:
                self._try_to_hand_back()
                raise
        self._under_way = ()
        return len(batch.entries)

    def hand_back(self) -> None:
        """Give up what is not settled of the batch under way, for others to take at once."""
        blamed = {work.entry.id for work in self._in_hands} if self._has_proof else set()
        deliveries = {entry.id: entry.deliveries for entry in self._under_way}
        self._lease.hand_back(blame.after_outage(deliveries, blamed))

    def _try_to_hand_back(self) -> None:
        try:
            self.hand_back()
        except redis.RedisError as error:
            # Not waited out: the process has to end. Worst case: each entry has lost one delivery.
            log.warning("hand_back_failed", error=repr(error))

    def _fetch(self) -> Batch:
        # Entries that others left may be what broke them: something else shows first that we can read.
        settings = self._settings
        return self._queue.fetch(settings.batch, settings.block_ms, new_first=not self._has_read)

    def _handle(self, entries: Sequence[Entry]) -> None:
        """Dead-letter what cannot be read, then take the rest through; repeats settle with the rest."""
        sorted_ = pipeline.sort_entries(entries, self._decoder.identity, served_model=self._model)
        refused = self._refused(sorted_.works)
        if refused is None:
            return
        works = [work for work in sorted_.works if work.tenant not in refused]
        worn = self._worn_out(works)
        of_refused = [rejection for rejections in refused.values() for rejection in rejections]
        for rejection in (*sorted_.rejections, *of_refused, *worn):
            self._dead_letter(rejection)
        given_up = {rejection.entry.id for rejection in worn}
        self._attempt([work for work in works if work.entry.id not in given_up])
        # After their first copies: had those failed, these would be the ones that are left.
        for work in sorted_.repeats:
            self._attempt([work])

    def _refused(self, works: Sequence[pipeline.Work]) -> dict[str, list[pipeline.Rejection]] | None:
        """Register the works' tenants; return those that the store refuses, None when told to stop."""
        refused: dict[str, list[pipeline.Rejection]] = {}
        for tenant, own in pipeline.by_tenant(works).items():
            try:
                if self._waiting_out(partial(self._targets.of, tenant)) is None:
                    return None
            except PermanentError as error:
                refused[tenant] = [pipeline.Rejection(one.entry, error.reason, str(error)) for one in own]
        return refused

    def _worn_out(self, works: Sequence[pipeline.Work]) -> list[pipeline.Rejection]:
        limit = self._settings.max_deliveries
        suspects = [work for work in works if work.entry.deliveries > limit]
        if not suspects:
            return []
        known = self._waiting_out(lambda: self._known(suspects))
        if known is None:
            return []
        return pipeline.worn_out(suspects, known, max_deliveries=limit)

    def _known(self, works: Sequence[pipeline.Work]) -> dict[uuid.UUID, dt.datetime]:
        known: dict[uuid.UUID, dt.datetime] = {}
        for tenant, own in pipeline.by_tenant(works).items():
            decoder_id = self._targets.of(tenant).decoder_id
            of_canaries = [work.sample_id for work in own if work.is_canary]
            with session_of(self._sessions, tenant) as session:
                captured = {work.sample_id: work.captured_at for work in own}
                known |= readings.list_known_explanations(session, captured, decoder_id)
                if of_canaries:
                    known |= canaries.list_known_readings(session, of_canaries, decoder_id)
        return known

    def _attempt(self, works: Sequence[pipeline.Work]) -> None:
        """Process; when it fails as a whole, one by one, so that one entry cannot stop the others."""
        if not works:
            return
        self._in_hands, self._has_proof = (), False
        if len(works) == 1 and works[0].entry.is_suspect:
            self._prove_decoder()
        try:
            lost = self._waiting_out(lambda: self._process(works))
        except UNUSABLE_STORES:
            raise
        except Exception as error:  # noqa: BLE001  # the boundary of a job
            self._metrics.failures.labels(type(error).__name__).inc()
            log.warning("batch_failed", entries=len(works), error=repr(error))
            if not isinstance(error, (PermanentError, *STORE_ERRORS)):
                self._require_decoder()
            if len(works) == 1:
                self._give_up(works[0].entry, error)
                return
            for work in works:
                self._attempt([work])
        else:
            for tenant, count in (lost or {}).items():
                self._count_lost(tenant, count)

    def _prove_decoder(self) -> None:
        """Return when the decoder reads: what breaks it next is the suspect."""
        for _ in range(random.randint(*blame.PROOFS)):  # noqa: S311  # no secret
            self._require_decoder()
        self._has_proof = True

    def _require_decoder(self) -> None:
        """Return when the decoder reads a known vector: then the entries were at fault, and not it.

        Raises DecoderOutageError when it does not for a while. It is not ready meanwhile, and no entry
        loses a delivery that others than itself may have spoiled.
        """
        gives_up_at = time.monotonic() + self._settings.decoder_recovery_seconds
        pause = self._settings.first_backoff_seconds
        while True:
            self._progress.beat()
            try:
                known_vector.read(self._decoder, self._judge)
            except Exception as error:
                self._warm.clear()
                self._metrics.failures.labels(DecoderOutageError.__name__).inc()
                log.warning("decoder_fails", error=repr(error), pause_seconds=pause)
                if time.monotonic() + pause > gives_up_at or self._stop.wait(pause):
                    self._try_to_hand_back()
                    raise DecoderOutageError("the decoder reads nothing any more") from error
            else:
                self._warm.set()
                return
            pause = min(pause * 2, _LONGEST_BACKOFF_SECONDS)

    def _process(self, works: Sequence[pipeline.Work]) -> dict[str, int]:
        """Decode, judge, commit, settle; return how many entries of each tenant the stream lost meanwhile.

        Tenants are decoded together and stored apart, in a transaction each. May be repeated from the start
        after a failure anywhere.
        """
        known = self._known(works)
        fresh = [work for work in works if work.sample_id not in known]
        read = dict(zip((work.sample_id for work in fresh), self._read(fresh), strict=True))
        self._reached("decoded")
        of_tenants = pipeline.by_tenant(works)
        for tenant, own in of_tenants.items():
            self._keep(self._targets.of(tenant), own, known, read)
        self._reached("committed")
        lost = {
            tenant: self._queue.settle([work.entry.id for work in own])
            for tenant, own in of_tenants.items()
        }
        self._reached("settled")
        return lost

    def _keep(
        self,
        target: Target,
        works: Sequence[pipeline.Work],
        known: Mapping[uuid.UUID, dt.datetime],
        read: Mapping[uuid.UUID, readings.NewReading],
    ) -> None:
        """Commit what was read for one tenant, and show it; ``read`` is by sample id."""
        fresh = [work for work in works if work.sample_id in read]
        rows = [read[work.sample_id] for work in fresh]
        stored = self._store(target, fresh, rows, pipeline.split_repeated(works, known))
        new_ids = {work.sample_id for work in fresh if _is_new(work.sample_id, target, stored)}
        self._observe([row for row in pipeline.divide(fresh, rows)[0] if row.sample.id in new_ids], stored)
        of_canaries = sum(work.is_canary and work.sample_id in new_ids for work in fresh)
        self._metrics.canary_readings.labels(self._model).inc(of_canaries)
        self._metrics.duplicates.inc(len(works) - len(stored.explanation_ids))

    def _read(self, works: Sequence[pipeline.Work]) -> list[readings.NewReading]:
        if not works:
            return []
        vectors = pipeline.stack(works)
        headers = [work.record.header for work in works]
        given = GivenFacts([header.token_id for header in headers], [header.phase for header in headers])
        self._in_hands = works
        self._progress.beat()
        started = time.monotonic()
        readings = self._decoder.read(vectors, given)
        self._metrics.decode_seconds.labels(self._model).observe(time.monotonic() - started)
        self._metrics.batch_size.observe(len(works))
        verdicts = self._judge.judge(
            vectors,
            [reading.text for reading in readings],
            Places.of(headers),
            [header.scores for header in headers],
            [reading.claims for reading in readings],
        )
        disputed = sum(verdict.is_disputed for verdict in verdicts)
        self._metrics.disputed.labels(self._model).inc(disputed)
        is_trusted = not self._health.failed
        rows = pipeline.to_rows(works, readings, verdicts, self._decoder.token_text, is_trusted=is_trusted)
        self._progress.beat()
        self._in_hands, self._has_proof, self._has_read = (), False, True
        return rows

    def _store(
        self,
        target: Target,
        fresh: Sequence[pipeline.Work],
        rows: Sequence[readings.NewReading],
        repeated: pipeline.Repetitions,
    ) -> readings.StoredBatch:
        """Commit rows and their counts together, so that the coverage tables cannot disagree with them."""
        traffic, of_canaries = pipeline.divide(fresh, rows)
        verdicts, tenant = self._judge.verdicts(), identity.tenant_id(target.tenant)
        with session_of(self._sessions, target.tenant) as session:
            stored = readings.store_batch(
                session,
                traffic,
                **target.ids,
                verdicts=verdicts,
                configuration_id=target.configuration_id,
                tenant=tenant,
            )
            found = canaries.store_batch(session, of_canaries, **target.ids, verdicts=verdicts)
            stored = stored._replace(explanation_ids=stored.explanation_ids | found)
            new = [work for work in fresh if _is_new(work.sample_id, target, stored)]
            late = [work for work in fresh if not _is_new(work.sample_id, target, stored)]
            if late:  # another worker stored them between our look and our insert
                others = pipeline.split_repeated(late, self._known(late))
                repeated = pipeline.Repetitions(*map(operator.add, repeated, others))
            counts = ledger.tally(
                {
                    WorkerCounter.ROWS_CONSUMED: self._cells([*new, *repeated.duplicates]),
                    WorkerCounter.ROWS_DECODED: self._cells(new),
                    WorkerCounter.ROWS_DUPLICATE: self._cells(repeated.duplicates),
                    WorkerCounter.ROWS_REDELIVERED: self._cells(repeated.redelivered),
                }
            )
            coverage.add_counts(session, ledger.to_rows(self._source, counts))
            kept = self._keep_vectors(session, target.tenant, new)
            self._reached("stored")
            session.commit()
        self._metrics.observe_vectors(self._model, kept)
        return stored

    def _keep_vectors(self, session: Session, tenant: str, new: Sequence[pipeline.Work]) -> KeptBatch:
        if self._vectors is None:
            return KeptBatch()
        samples = [
            Activation(work.sample_id, work.captured_at, work.record) for work in new if not work.is_canary
        ]
        return self._vectors.keep(session, tenant, samples, dt.datetime.now(dt.UTC))

    def _cells(self, works: Sequence[pipeline.Work]) -> list[ledger.Cell]:
        return [ledger.cell_of(work.entry, self._model) for work in works]

    def _count(self, tenant: str, counts: ledger.Counts) -> None:
        with session_of(self._sessions, tenant) as session:
            coverage.add_counts(session, ledger.to_rows(self._source, counts))
            session.commit()

    def _count_lost(self, tenant: str, lost: int) -> None:
        """Count rows that were read although the sidecar trimmed them, and counted them as dropped."""
        if lost:
            cell = ledger.Cell(self._model, Stratum.UNKNOWN, int(time.time()) // 60, tenant)
            counts: ledger.Counts = Counter({(cell, WorkerCounter.ROWS_TRIMMED_BUT_READ): lost})
            self._waiting_out(lambda: self._count(tenant, counts))

    def _dead_letter(self, rejection: pipeline.Rejection) -> None:
        burial = self._waiting_out(lambda: self._move(rejection))
        if burial is None:
            return  # still pending: a later delivery tries again
        labels = (self._queue.stream, rejection.reason)
        self._metrics.dead_letters.labels(*labels).inc()
        self._metrics.dead_letters_trimmed.labels(*labels).inc(burial.trimmed)
        log.warning("entry_dead_lettered", entry=rejection.entry.id.decode(), reason=rejection.reason)
        cell = ledger.cell_of(rejection.entry, self._model)
        counts = ledger.tally(
            {WorkerCounter.ROWS_CONSUMED: [cell], DEAD_LETTERED[rejection.reason]: [cell]}
        )
        self._waiting_out(lambda: self._count(cell.tenant, counts))
        self._count_lost(cell.tenant, burial.lost)

    def _move(self, rejection: pipeline.Rejection) -> Burial | None:
        """Dead-letter it; None when Redis has no room for it."""
        try:
            return self._queue.dead_letter(rejection.entry, rejection.reason, rejection.error)
        except redis.OutOfMemoryError as error:
            # Not waited out: only settling the other entries makes room.
            self._metrics.failures.labels(type(error).__name__).inc()
            log.warning("dead_letter_postponed", entry=rejection.entry.id.decode(), error=repr(error))
            return None

    def _give_up(self, entry: Entry, error: Exception) -> None:
        """Dead-letter what can never work or failed too often; leave the rest for another delivery."""
        is_permanent = isinstance(error, PermanentError)
        if not is_permanent and entry.deliveries < self._settings.max_deliveries:
            return
        if isinstance(error, PermanentError):
            reason: RejectReason | DeadLetterReason = error.reason
        elif isinstance(error, STORE_ERRORS):
            reason = DeadLetterReason.STORE_REFUSED
        else:
            reason = DeadLetterReason.DECODE_FAILED
        self._dead_letter(pipeline.Rejection(entry, reason, "".join(traceback.format_exception(error))))

    def _observe(self, new: Sequence[readings.NewReading], stored: readings.StoredBatch) -> None:
        """Show the readings that no other worker stored first."""
        now = dt.datetime.now(dt.UTC)
        model, metrics = self._model, self._metrics
        self._judge_decoder([row for row in new if row.sample.baseline_probability > 0])
        for row in new:
            sample = row.sample
            selection = "baseline" if sample.baseline_probability > 0 else "screen"
            layer = str(sample.layer)
            status = "verified" if row.verified else "unverified"
            metrics.stored.labels(model, layer, status, selection, row.position_class).inc()
            metrics.fve.labels(model, layer, selection).observe(row.fve)
            if row.fve_beyond_token is not None:
                metrics.fve_beyond_token.labels(model, layer, selection).observe(row.fve_beyond_token)
            metrics.cosine.labels(model, layer, selection).observe(row.cosine)
            metrics.latency_seconds.labels(model).observe((now - sample.captured_at).total_seconds())
            if row.anomaly_p_value is not None:
                metrics.anomaly_p_value.labels(model, selection).observe(row.anomaly_p_value)
                if row.anomaly_p_value <= self._judge.policy.anomaly_p_value:
                    metrics.anomalies.labels(model, "direction", selection).inc()
        for flag in stored.flags:
            metrics.flags.labels(model, flag.concept, flag.severity, flag.status).inc()
        metrics.observe_incidents(model, stored.incidents, stored.incident_errors)
        for error_type in stored.incident_errors:
            log.error("incident_not_written", error_type=error_type)

    def _judge_decoder(self, rows: Sequence[readings.NewReading]) -> None:
        """Take readings of the baseline into the decoder's health; it counts from the next batch on."""
        before = self._health.failed
        self._health.add(
            [
                decoder_health.ReadingFacts(
                    hash(row.text), row.well_formed, row.fve_beyond_token, row.position_class
                )
                for row in rows
            ]
        )
        failed = self._health.failed
        if failed != before:
            log.warning("decoder_health_changed", failed=list(failed), before=list(before))
        self._tell_health()

    def _tell_health(self) -> None:
        labels = (self._model, str(self._decoder.identity.layer))
        failed = self._health.failed
        for name in decoder_health.NAMES:
            self._metrics.decoder_health_failed.labels(*labels, name).set(name in failed)
        for found in self._health.checks:
            self._metrics.decoder_health.labels(*labels, found.name).set(found.value)
        is_trusted = self._decoder.identity.is_calibrated and not failed
        self._metrics.decoder_trusted.labels(*labels).set(is_trusted)

    def _waiting_out(self, act: Callable[[], T]) -> T | None:
        """Repeat the act until no store is away; None when told to stop meanwhile."""
        pause = self._settings.first_backoff_seconds
        while True:
            self._progress.beat()
            try:
                return act()
            except STORE_ERRORS as error:
                if not is_outage(error):
                    raise
                if isinstance(error, redis.RedisError):
                    self._queue.reconnect()
                self._metrics.failures.labels(type(error).__name__).inc()
                log.warning("store_away", error=repr(error), pause_seconds=pause)
            if self._stop.wait(pause):
                return None
            pause = min(pause * 2, _LONGEST_BACKOFF_SECONDS)


def _is_new(sample_id: uuid.UUID, target: Target, stored: readings.StoredBatch) -> bool:
    return identity.explanation_id(sample_id, target.decoder_id) in stored.explanation_ids
