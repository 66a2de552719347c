"""Coverage counts of plugin and sidecar, and what they run, from their stream to the store."""

import datetime as dt
import threading
from collections.abc import Sequence
from typing import NamedTuple

import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.store.configuration import write as configurations
from service.store.tenants import register
from service.store.write import coverage
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.configuration import MAX_DEPTH, Configuration, Kind, digest, is_content
from subtext_sidecar.contract.counters import DeadLetterReason, RejectReason
from workers.consumer.ledger import MAX_TEXT, STRATA
from workers.consumer.metrics import WorkerMetrics
from workers.consumer.queue import Entry, Queue, QueueSettings
from workers.errors import STORE_ERRORS, UNUSABLE_STORES, is_outage

log = structlog.get_logger()

COVERAGE_QUEUE = QueueSettings(
    stream=streams.COVERAGE_STREAM,
    group=streams.COVERAGE_GROUP,
)
_BATCH = 200
_BLOCK_MS = 1000
_PAUSE_SECONDS = 2.0
_MAX_COUNTERS = 256


_KINDS = frozenset(map(str, Kind))


class _CoverageEntry(NamedTuple):
    entry: Entry
    tenant: str
    counts: list[coverage.SourceCount]
    reports: list[configurations.Report]


class CoverageIntake:
    """Moves counts into the store. Any number of workers may do so at once: the largest value wins."""

    def __init__(self, queue: Queue, sessions: sessionmaker[Session], metrics: WorkerMetrics) -> None:
        """``queue`` reads COVERAGE_QUEUE."""
        self._queue = queue
        self._sessions = sessions
        self._metrics = metrics

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; an outage is waited out."""
        while not stop.is_set():
            try:
                self.step()
            except STORE_ERRORS as error:
                if not is_outage(error):
                    raise
                log.warning("coverage_intake_waits", error=repr(error))
                if isinstance(error, redis.RedisError):
                    self._queue.reconnect()
                stop.wait(_PAUSE_SECONDS)

    def step(self, block_ms: int = _BLOCK_MS) -> int:
        """Store one batch and settle it; return how many counts could be read."""
        read: list[_CoverageEntry] = []
        for entry in self._queue.fetch(_BATCH, block_ms).entries:
            try:
                count = record.decode_coverage(entry.fields.get(streams.FIELD_HEADER, b""))
                reports = self._reports(entry, count)
                read.append(_CoverageEntry(entry, count.tenant, _source_counts(count), reports))
            except record.RecordError as error:
                self._dead_letter(entry, error.reason, str(error))
        for tenant in dict.fromkeys(one.tenant for one in read):
            self._store(tenant, [one for one in read if one.tenant == tenant])
        return sum(len(one.counts) for one in read)

    def _reports(self, entry: Entry, count: record.CoverageCount) -> list[configurations.Report]:
        """Return what the source runs, as of when the sidecar said it: a message may have waited here."""
        if not count.configurations:
            return []
        age_seconds = self._queue.age_seconds(entry)
        return [
            configurations.Report(
                source=count.source,
                hop=count.hop,
                model=count.model,
                layer=one.layer,
                configuration=_configuration(one),
                age_seconds=age_seconds,
            )
            for one in count.configurations
            if one.kind in _KINDS
        ]

    def _store(self, tenant: str, read: Sequence[_CoverageEntry]) -> None:
        """Store and settle; where PostgreSQL refuses it, one by one, to dead-letter the one at fault."""
        try:
            with self._sessions() as session:
                register.use_tenant(session, tenant)
                configurations.note(session, [report for one in read for report in one.reports])
                coverage.upsert_counts(session, [count for one in read for count in one.counts])
                session.commit()
        except UNUSABLE_STORES:
            raise
        except register.TooManyTenantsError as error:
            for one in read:
                self._dead_letter(one.entry, DeadLetterReason.TOO_MANY_TENANTS, str(error))
        except (SQLAlchemyError, ValueError, OverflowError) as error:
            if is_outage(error):
                raise
            if len(read) == 1:
                self._dead_letter(read[0].entry, DeadLetterReason.STORE_REFUSED, str(error))
                return
            for one in read:
                self._store(tenant, [one])
        else:
            self._queue.settle([one.entry.id for one in read])

    def _dead_letter(self, entry: Entry, reason: RejectReason | DeadLetterReason, error: str) -> None:
        burial = self._queue.dead_letter(entry, reason, error)
        self._metrics.dead_letters.labels(streams.COVERAGE_STREAM, reason).inc()
        self._metrics.dead_letters_trimmed.labels(streams.COVERAGE_STREAM, reason).inc(burial.trimmed)
        log.warning("count_dead_lettered", entry=entry.id.decode(), reason=reason)


def _configuration(report: record.ConfigurationReport) -> Configuration:
    if digest(report.content) != report.digest:
        raise record.RecordError(
            RejectReason.BAD_FIELD,
            f"configurations: the content of {report.kind} is not what its digest says",
        )
    if not is_content(report.content):
        raise record.RecordError(
            RejectReason.BAD_FIELD,
            f"configurations: the content of {report.kind} is no object in canonical JSON that is"
            f" {MAX_DEPTH} levels deep at most",
        )
    return Configuration(Kind(report.kind), report.digest, report.content)


def _source_counts(count: record.CoverageCount) -> list[coverage.SourceCount]:
    try:
        minute = dt.datetime.fromtimestamp(count.minute * 60, dt.UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise record.RecordError(RejectReason.BAD_FIELD, f"minute: {count.minute} is no time") from error
    texts = (count.source, count.model, *count.counts)
    if any("\x00" in text or len(text) > MAX_TEXT for text in texts):
        raise record.RecordError(
            RejectReason.BAD_FIELD,
            f"source, model, counts: texts must be NUL-free, at most {MAX_TEXT} characters",
        )
    if count.stratum not in STRATA:
        raise record.RecordError(
            RejectReason.BAD_FIELD,
            f"stratum: {count.stratum[:MAX_TEXT]!r} is not one of {', '.join(sorted(STRATA))}",
        )
    if len(count.counts) > _MAX_COUNTERS:
        raise record.RecordError(
            RejectReason.OVERSIZED, f"counts: {len(count.counts)} counters, limit {_MAX_COUNTERS}"
        )
    if any(not 0 <= value < 2**63 for value in count.counts.values()):
        raise record.RecordError(
            RejectReason.BAD_FIELD, "counts: values must fit a bigint and not be negative"
        )
    return [
        coverage.SourceCount(
            minute=minute,
            source=count.source,
            hop=count.hop,
            model=count.model,
            stratum=count.stratum,
            counter=name,
            count=value,
        )
        for name, value in count.counts.items()
    ]
