"""Carry out the requests for erasure that are due, in sweeps that can be killed at any moment and repeated.

A sweep goes over the streams first and over the tables then, each batch in a transaction of its own. What
was on its way meanwhile, in a sidecar or in a worker's hands, is found by a later one: an erasure is done
when sweeps have found nothing more for `settle_seconds`. Its identifier is forgotten then.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis
import structlog
from sqlalchemy import ColumnElement, Select, delete, exists, func, select, tuple_, union
from sqlalchemy.orm import Session, sessionmaker

from service.erasure import streams
from service.erasure.rows import AT_ONCE, Erased, erase_explanations, erase_subjects, forget_captures
from service.erasure.target import Target
from service.evidence.tombstones import Reason
from service.exports.erase import erase_exports
from service.retention import holds
from service.store.erasure import requests
from service.store.erasure.standing import Span
from service.store.erasure.tables import Erasure, ErasureScope
from service.store.exports import write
from service.store.exports.tables import State
from service.store.tables import (
    CanaryFlag,
    CanaryReading,
    Explanation,
    RequestName,
    Sample,
)
from service.store.tenants import scope
from service.store.vectors import rows as vectors
from service.store.write.flags import Subject

log = structlog.get_logger(__name__)
SETTLE_SECONDS: Final = 600.0
"""Longer than a worker holds a batch, or a sidecar a row that it can hand over."""


Sessions = sessionmaker[Session]


class _NoFolderError(Exception):
    """An export was asked for in the midst of a sweep that knows no folder of exports."""


class Swept(NamedTuple):
    """What one sweep over all erasures that are due did."""

    done: int
    open: int
    """Due ones that are not done."""
    waiting: int = 0
    """Those to which somebody may still object: nothing of them was touched."""


def run(
    sessions: Sessions,
    client: redis.Redis,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    at_once: int = AT_ONCE,
    exports: Path | None = None,
) -> Swept:
    """Sweep once for every erasure that is due, of every tenant. It may run twice and be killed.

    A transaction erases at most ``at_once`` explanations. ``exports`` is the folder of exports' files;
    where it is not known, an erasure of a tenant that has exports waits until they are over. Raises
    SQLAlchemyError and RedisError when a store is away; all that was done stays done.
    """
    close_objected(sessions)
    with sessions.begin() as session:
        targets = [_target(one) for one in requests.list_due(session)]
        waiting = requests.count_waiting(session)
    if not targets:
        return Swept(0, 0, waiting)
    deleted = streams.sweep(client, targets)
    settle = dt.timedelta(seconds=settle_seconds)
    done = sum(_sweep(Sweep(sessions, one, deleted[one], at_once, exports), settle) for one in targets)
    return Swept(done, len(targets) - done, waiting)


def close_objected(sessions: Sessions) -> None:
    """Close erasures to which somebody objected, and forget what they were about: it takes no stream."""
    with sessions.begin() as session:
        for cancelled in requests.cancel_objected(session):
            log.info("erasure_cancelled", erasure=str(cancelled))


def _target(erasure: Erasure) -> Target:
    return Target(
        erasure=erasure.id,
        tenant=erasure.tenant_id,
        scope=ErasureScope(erasure.scope),
        identifier=erasure.identifier or "",
        asked_at=erasure.asked_at,
    )


def _sweep(found: "Sweep", settle: dt.timedelta) -> bool:
    """Sweep the tables for one erasure; return whether it is done."""
    try:
        found.tables()
    except _NoFolderError:  # the transaction did nothing
        found.wait_for_folder()
    held, erasure = found.count_held(), found.target.erasure
    is_clean = not (found.total or found.waiting or held)
    with _transaction(found.sessions, found.target) as session:
        since = requests.note_sweep(session, erasure, held=held, is_clean=is_clean)
        if since is not None and session.execute(select(func.now() - since >= settle)).scalar_one():
            requests.finish(session, erasure)
            log.info("erasure_done", erasure=str(erasure))
            return True
    counts = {"erased": found.total, "waiting": found.waiting, "held": held}
    log.info("erasure_swept", erasure=str(erasure), **counts)
    return False


@contextmanager
def _transaction(sessions: Sessions, target: Target) -> Iterator[Session]:
    with sessions.begin() as session:
        scope.set_tenant(session, target.tenant)
        yield session


class Sweep:
    """One pass over the tables for one erasure."""

    def __init__(
        self, sessions: Sessions, target: Target, entries: int, at_once: int, exports: Path | None
    ) -> None:
        self.sessions = sessions
        self.target = target
        self._entries = entries
        self._at_once = at_once
        self._exports = exports
        self._gone: frozenset[uuid.UUID] = frozenset()
        self.total = 0
        """Rows and entries that went."""
        self.waiting = 0
        """Subjects whose entries have no place in the log yet."""

    def tables(self) -> None:
        """Erase what there is, some at a time: rows that were read, what is left of others, names."""
        if self._entries:
            with self._begin() as session:
                self._note(session, {"stream_entries": self._entries})
        if self._exports is None and self._has_exports():
            # Which of them to delete could be told by the rows alone, so these must wait as well.
            self.wait_for_folder()
            return
        for branch in self.target.branches(Sample):
            self._explanations(branch)
        for table in holds.STANDING:
            for branch in self.target.branches(table):
                self._subjects(table, branch)
        self._rest()

    def wait_for_folder(self) -> None:
        """Leave the erasure open, and say what it waits for."""
        log.warning("erasure_waits", erasure=str(self.target.erasure), lacks="SUBTEXT_EXPORT_FOLDER")
        self.waiting += 1

    @contextmanager
    def _begin(self) -> Iterator[Session]:
        with _transaction(self.sessions, self.target) as session:
            holds.freeze(session)
            yield session
        gone, self._gone = self._gone, frozenset()
        # Once more: an export may have begun before the commit, and read what was there until then.
        if gone and self._has_exports():
            with _transaction(self.sessions, self.target) as session:
                self._erase_exports(session, gone)

    def _has_exports(self) -> bool:
        with _transaction(self.sessions, self.target) as session:
            return bool(write.list_living(session, self.target.tenant))

    def _erase_exports(self, session: Session, gone: Collection[uuid.UUID]) -> None:
        if self._exports is None:
            # Asked for since the sweep began. One that is not whole yet is given up by who makes it.
            living = write.list_living(session, self.target.tenant)
            write.mark_erased(session, [one.id for one in living if one.state != State.READY])
            if any(one.state == State.READY for one in living):
                raise _NoFolderError
            return
        erased = erase_exports(session, self._exports, self.target.tenant, gone)
        self._note(session, {"exports": len(erased)})

    def _note(self, session: Session, counts: dict[str, int]) -> None:
        went = {name: count for name, count in counts.items() if count}
        if went:
            requests.add_counts(session, self.target.erasure, went)
            self.total += sum(went.values())

    def _add(self, session: Session, erased: Erased) -> None:
        self.waiting += erased.waiting
        self._note(session, erased.counts())
        if erased.ids:
            self._gone |= frozenset(erased.ids)
            self._erase_exports(session, erased.ids)

    def _explanations(self, branch: ColumnElement[bool]) -> None:
        """Erase batch after batch. What has to wait is passed over, for the next sweep to find."""
        place: tuple[dt.datetime, uuid.UUID] | None = None
        query = (
            select(Explanation.captured_at, Explanation.id)
            .join(
                Sample,
                (Sample.id == Explanation.sample_id) & (Sample.captured_at == Explanation.captured_at),
            )
            .where(branch, ~holds.covers_evidence())
            .order_by(Explanation.captured_at, Explanation.id)
            .limit(self._at_once)
        )
        while True:
            with self._begin() as session:
                behind = () if place is None else (tuple_(Explanation.captured_at, Explanation.id) > place,)
                rows = session.execute(query.where(*behind)).all()
                if not rows:
                    return
                place = (rows[-1][0], rows[-1][1])
                erased = erase_explanations(
                    session,
                    [row.id for row in rows],
                    reason=Reason.ERASURE,
                    authority=self.target.erasure,
                    within=Span(rows[0].captured_at, rows[-1].captured_at),
                )
                self._add(session, erased)

    def _subjects(self, table: Any, branch: ColumnElement[bool]) -> None:
        """Erase what stands on explanations that were gone before."""
        place: uuid.UUID | None = None
        unit = (table.model_id, table.decoder_id, table.capture_id, table.request_id, table.layer)
        query = (
            select(table.id, *unit)
            .where(branch, ~holds.covers_standing(table))
            .order_by(table.id)
            .limit(self._at_once)
        )
        while True:
            with self._begin() as session:
                behind = () if place is None else (table.id > place,)
                rows = session.execute(query.where(*behind)).all()
                if not rows:
                    return
                place = rows[-1][0]
                subjects = sorted({Subject(*row[1:]) for row in rows}, key=str)
                erased = erase_subjects(
                    session, subjects, reason=Reason.ERASURE, authority=self.target.erasure
                )
                self._add(session, erased)

    def _rest(self) -> None:
        """Erase names of captures without a sample, samples that nobody read, and what canaries left."""
        is_read = exists().where(Explanation.sample_id == Sample.id)
        for branch in self.target.branches(Sample):
            with self._begin() as session:
                gone = session.execute(
                    delete(Sample).where(branch, ~is_read, ~holds.covers_evidence()).returning(Sample.id),
                    execution_options={"synchronize_session": False},
                ).all()
                samples = [one.id for one in gone]
                went = vectors.delete_for(session, samples)
                self._add(session, Erased(samples=len(gone), vectors=went, ids=tuple(samples)))
        names = self.target.names()
        if names is not None:
            self._names(names)
        for table, condition in self._canaries():
            with self._begin() as session:
                gone_rows = session.execute(
                    delete(table)
                    .where(table.tenant_id == self.target.tenant, condition, ~holds.covers_canaries(table))
                    .returning(table.capture_id),
                    execution_options={"synchronize_session": False},
                ).all()
                self._note(session, {table.__tablename__: len(gone_rows)})

    def _names(self, condition: ColumnElement[bool]) -> None:
        of_capture = (Sample.capture_id == RequestName.capture_id) | (
            RequestName.capture_id.is_(None) & Sample.capture_id.is_(None)
        )
        has_sample = exists().where(
            of_capture, Sample.model_id == RequestName.model_id, Sample.request_id == RequestName.request_id
        )
        query = (
            select(RequestName.capture)
            .where(condition, ~has_sample, ~holds.covers_names())
            .distinct()
            .limit(self._at_once)
        )
        while True:
            with self._begin() as session:
                captures = list(session.scalars(query))
                erased = forget_captures(session, captures, authority=self.target.erasure)
                self._add(session, erased)
                if not erased.request_names:
                    return

    def _canaries(self) -> Sequence[tuple[Any, ColumnElement[bool]]]:
        both: tuple[Any, ...] = (CanaryReading, CanaryFlag)
        match self.target.scope:
            case ErasureScope.CAPTURE:
                capture = uuid.UUID(self.target.identifier)
                return [(table, table.capture_id == capture) for table in both]
            case ErasureScope.TENANT:
                return [(table, table.stored_at <= self.target.asked_at) for table in both]
            case _:
                return []

    def count_held(self) -> int:
        """Return how many rows are the target's and must stay."""
        with _transaction(self.sessions, self.target) as session:
            return sum(session.execute(one).scalar_one() for one in self._held())

    def _held(self) -> Iterator[Select[int]]:
        """Yield the counts of explanations, samples that nobody read, what stands, names and canaries."""
        branches = self.target.branches(Sample)
        read = [
            select(Explanation.id)
            .join(Sample, Sample.id == Explanation.sample_id)
            .where(branch, holds.covers_evidence())
            for branch in branches
        ]
        is_read = exists().where(Explanation.sample_id == Sample.id)
        unread = [select(Sample.id).where(one, ~is_read, holds.covers_evidence()) for one in branches]
        yield _count(union(*read))
        yield _count(union(*unread))
        for table in holds.STANDING:
            standing = [
                select(table.id).where(one, holds.covers_standing(table))
                for one in self.target.branches(table)
            ]
            if standing:
                yield _count(union(*standing))
        names = self.target.names()
        if names is not None:
            held = select(RequestName.name, RequestName.capture).where(names, holds.covers_names())
            yield _count(held)
        for canaries, condition in self._canaries():
            mine = canaries.tenant_id == self.target.tenant
            yield _count(
                select(canaries.capture_id).where(mine, condition, holds.covers_canaries(canaries))
            )


def _count(query: Any) -> Select[int]:
    return select(func.count()).select_from(query.subquery())
