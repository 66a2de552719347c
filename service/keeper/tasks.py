"""The registry of jobs: what runs when it is due, and what runs when somebody asks for it.

A job may run twice, when its process was killed in the middle: each is written so that this does no harm.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.erasure import run as erasure
from service.exports.expire import expire
from service.exports.make import ExportError, Maker
from service.keeper.metrics import KeeperMetrics, UnfinishedError
from service.retention import holds, record_run
from service.retention.pace import Pace
from service.retention.run import run as run_retention
from service.store import partitions
from service.store.erasure import requests
from service.store.tenants import scope
from service.store.tenants.read import list_ids
from service.store.vectors import rows as vectors

log = structlog.get_logger(__name__)
_VECTORS_AT_ONCE: Final = 2_000
"""Deleted in one transaction: some 15 MB of a large model."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What jobs work with."""

    engine: Engine
    """Of the keeper's own login."""
    sessions: sessionmaker[Session]
    """Of that engine."""
    metrics: KeeperMetrics
    export_folder: Path
    maker: Maker
    streams: redis.Redis | None
    """Where rows wait for workers. None: no erasure can be carried out, for one must go over these too."""
    erase_settle_seconds: float = erasure.SETTLE_SECONDS
    pace: Pace = field(default_factory=Pace)
    """Of retention."""
    stop: Callable[[], bool] = lambda: False
    """Asked between two transactions of what may take hours: the process ends."""


class ErasureFailedError(RuntimeError):
    """A sweep ended early, and the next one goes on; the message is the error's type."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that is due by a cron expression, in UTC."""

    name: str
    cron: str
    run: Callable[[Keeping, dt.datetime], object]
    """Told when it was due."""
    tries: int = 1
    """Of one that is not due again for so long that what failed, or was stopped, must not wait for that."""


def _expire_exports(keeping: Keeping, _due: dt.datetime) -> None:
    expire(keeping.sessions, keeping.export_folder)


def _erase(keeping: Keeping, _due: dt.datetime) -> None:
    if keeping.streams is None:
        erasure.close_objected(keeping.sessions)
        with keeping.sessions() as session:
            waiting = len(requests.list_due(session))
        keeping.metrics.erasures_without_redis.set(waiting)
        if waiting:
            log.warning("erasures_wait", requests=waiting, lacks="SUBTEXT_REDIS_URL")
        return
    try:
        erasure.run(
            keeping.sessions,
            keeping.streams,
            settle_seconds=keeping.erase_settle_seconds,
            exports=keeping.export_folder,
        )
    except (SQLAlchemyError, redis.RedisError) as error:
        # No more than its type: the queue logs what it is given, and an identifier must not be in a log.
        raise ErasureFailedError(type(error).__name__) from None


def _retain(keeping: Keeping, _due: dt.datetime) -> None:
    outcomes = run_retention(keeping.sessions, keeping.pace, stop=keeping.stop)
    of_records = record_run.run(keeping.sessions, keeping.pace, stop=keeping.stop)
    finished = [*(one.is_finished for one in outcomes), *(one.is_finished for one in of_records)]
    if not all(finished) or keeping.stop():
        raise UnfinishedError("the rows of some models, or some records, are the next try's")


def _make_days(keeping: Keeping, due: dt.datetime) -> None:
    made = partitions.make_ahead(keeping.engine, due.date())
    if made.made:
        log.info("days_made", days=[str(day) for day in made.made])
    if made.occupied:
        log.warning("days_occupied", days=[str(day) for day in made.occupied])


def _drop_days(keeping: Keeping, due: dt.datetime) -> None:
    dropped = partitions.drop_empty(keeping.engine, due)
    if dropped:
        log.info("days_dropped", days=dropped)


def _analyze_days(keeping: Keeping, due: dt.datetime) -> None:
    analyzed = partitions.analyze_parents(keeping.engine, due)
    if analyzed:
        log.info("days_analyzed", tables=analyzed)


def _expire_vectors(keeping: Keeping, due: dt.datetime) -> None:
    with keeping.sessions() as session:
        tenants = list_ids(session)
    for tenant in tenants:
        deleted = _VECTORS_AT_ONCE
        while deleted == _VECTORS_AT_ONCE and not keeping.stop():
            with keeping.sessions.begin() as session:
                scope.set_tenant(session, tenant)
                holds.freeze(session)
                deleted = vectors.expire(session, due, _VECTORS_AT_ONCE, spared=holds.covers())


PERIODIC: Final[Sequence[Periodic]] = (
    Periodic("expire_exports", "*/5 * * * *", _expire_exports),
    Periodic("erase", "*/2 * * * *", _erase),
    Periodic("make_days", "7 * * * *", _make_days),
    Periodic("drop_days", "23 5 * * *", _drop_days),
    Periodic("analyze_days", "52 * * * *", _analyze_days),
    Periodic("expire_vectors", "37 * * * *", _expire_vectors),
    Periodic("retain", "11 3 * * *", _retain, tries=12),
)

MAKE_EXPORT: Final = "make_export"
"""A trigger of revision 0027 puts one into the queue for each export that is asked for."""
MOST_TRIES: Final = 5
"""Of a job that somebody asked for."""


def make_export(keeping: Keeping, export: str) -> None:
    """Make the file of one export."""
    keeping.maker.make(uuid.UUID(export))


def give_up_export(keeping: Keeping, export: str, error: Exception) -> None:
    """Say of an export that it failed, and why, as a code."""
    keeping.maker.fail(
        uuid.UUID(export), error.code if isinstance(error, ExportError) else "internal_error"
    )
