"""Reading the access log: who did what, and what each key may do and did."""

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, CompoundSelect, Select, func, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.store.access.tables import AccessEntry, AccessSubject, Action
from service.store.identity import capture_name
from service.store.people.tables import LoginSession
from service.store.read.explanations import find_sample
from service.store.read.page import Page, Position, older_than
from service.store.retention.tables import Records, RetentionRun
from service.store.tables import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries to list; None means any."""

    key_id: uuid.UUID | None = None
    session_id: uuid.UUID | None = None
    person: str | None = None
    action: Action | None = None
    purpose: str | None = None
    subject: uuid.UUID | None = None  # an explanation, a capture, an incident or a key
    entered_after: dt.datetime | None = None  # inclusive
    entered_before: dt.datetime | None = None  # exclusive


class Usage(NamedTuple):
    """What one key, or one session of a person, did in a period."""

    text_reads: int = 0
    """Answers that showed text."""
    texts_read: int = 0
    """Explanations in them; one that was read twice counts twice."""
    writes: int = 0
    denials: int = 0
    """Those without an entry of their own too, as far as a later entry counts them."""


class Right(NamedTuple):
    """A key, or a session of a person, and what was done by it."""

    holder: ApiKey | LoginSession
    usage: Usage


def list_entries(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[AccessEntry]:
    """Return one page, newest first."""
    query = select(AccessEntry).order_by(AccessEntry.at.desc(), AccessEntry.id.desc()).limit(limit + 1)
    if wanted.subject is None:
        query = query.where(*_conditions(wanted), *_in_time(AccessEntry.at, AccessEntry.id, wanted, after))
    else:
        query = query.where(
            AccessEntry.id.in_(_newest_about(session, wanted.subject, wanted, after, limit + 1))
        )
    entries = list(session.scalars(query))
    page = entries[:limit]
    last = page[-1] if len(entries) > limit else None
    return Page(page, Position(last.at, last.id) if last else None)


def removed_before(session: Session) -> dt.datetime | None:
    """Return before when retention may have removed entries; None: it removed none."""
    run = RetentionRun
    removed = run.removed["access_entries"].as_integer()
    return session.scalar(
        select(func.max(run.captured_before)).where(run.records == Records.ACCESS_LOG, removed > 0)
    )


def list_rights(
    session: Session, start: dt.datetime, end: dt.datetime, after: Position | None, limit: int
) -> Page[Right]:
    """Return one page of keys and of people's sessions, newest first; used from start up to end.

    Keys are all there are, revoked and expired ones too; sessions those that could be used in the period.
    """
    of_people = select(LoginSession.created_at, LoginSession.id).where(
        LoginSession.person.is_not(None), LoginSession.created_at < end, LoginSession.expires_at >= start
    )
    both = union_all(select(ApiKey.created_at, ApiKey.id), of_people).subquery()
    order = tuple_(both.c.created_at, both.c.id)
    query = select(both).order_by(both.c.created_at.desc(), both.c.id.desc())
    if after is not None:
        query = query.where(order < after)
    found = [Position(*row) for row in session.execute(query.limit(limit + 1))]
    page = found[:limit]
    rights = _rights(session, [one.id for one in page], start, end)
    return Page(rights, page[-1] if len(found) > limit else None)


def _rights(
    session: Session, ids: Sequence[uuid.UUID], start: dt.datetime, end: dt.datetime
) -> list[Right]:
    """Return what the keys and sessions of these ids may do and did, in this order."""
    holders: dict[uuid.UUID, ApiKey | LoginSession] = {
        one.id: one for one in session.scalars(select(ApiKey).where(ApiKey.id.in_(ids)))
    }
    holders |= {
        one.id: one for one in session.scalars(select(LoginSession).where(LoginSession.id.in_(ids)))
    }
    used = _count_usage(session, AccessEntry.key_id, ids, start, end)
    used |= _count_usage(session, AccessEntry.session_id, ids, start, end)
    return [Right(holders[one], used.get(one, Usage())) for one in ids]


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return what is asked of an entry itself."""
    equal = (
        (AccessEntry.key_id, wanted.key_id),
        (AccessEntry.session_id, wanted.session_id),
        (AccessEntry.person, wanted.person),
        (AccessEntry.action, wanted.action),
        (AccessEntry.purpose, wanted.purpose),
    )
    return [column == value for column, value in equal if value is not None]


def _in_time(
    at: InstrumentedAttribute[dt.datetime],
    entry: InstrumentedAttribute[uuid.UUID],
    wanted: Filter,
    after: Position | None,
) -> Iterator[ColumnElement[bool]]:
    if wanted.entered_after is not None:
        yield at >= wanted.entered_after
    if wanted.entered_before is not None:
        yield at < wanted.entered_before
    if after is not None:
        yield older_than(at, entry, after)


def _newest_about(
    session: Session, subject: uuid.UUID, wanted: Filter, after: Position | None, limit: int
) -> CompoundSelect[uuid.UUID]:
    """Return the ids of entries that name it, or showed more of its capture than they name.

    The newest of each, as many as a page has, in the order of the index: one may be in very many.
    """

    def newest(of: uuid.UUID, *conditions: ColumnElement[bool]) -> Select[uuid.UUID]:
        one = aliased(AccessSubject)
        return (
            select(one.entry_id)
            .join(AccessEntry, AccessEntry.id == one.entry_id)
            .where(
                one.subject_id == of,
                one.was_asked.is_(False),
                *_in_time(one.at, one.entry_id, wanted, after),
            )
            .where(*conditions, *_conditions(wanted))
            .order_by(one.at.desc(), one.entry_id.desc())
            .limit(limit)
        )

    named = newest(subject)
    sample = find_sample(session, subject)
    if sample is None:
        return union_all(named)
    capture = capture_name(sample.capture_id, sample.model_id, sample.request_id)
    return union_all(
        named, newest(capture, AccessEntry.subjects_total > func.cardinality(AccessEntry.subject_ids))
    )


def _count_usage(
    session: Session,
    by: InstrumentedAttribute[uuid.UUID | None],
    ids: Sequence[uuid.UUID],
    start: dt.datetime,
    end: dt.datetime,
) -> dict[uuid.UUID, Usage]:
    reads, writes = AccessEntry.action == Action.READ_TEXT, AccessEntry.action == Action.WRITE
    denials = func.sum(AccessEntry.suppressed + 1).filter(AccessEntry.action == Action.DENY)
    query = (
        select(
            by,
            func.count().filter(reads),
            func.coalesce(func.sum(AccessEntry.subjects_total).filter(reads), 0),
            func.count().filter(writes),
            func.coalesce(denials, 0),
        )
        .where(by.in_(ids), AccessEntry.at >= start, AccessEntry.at < end)
        .group_by(by)
    )
    return {one: Usage(*counts) for one, *counts in session.execute(query) if one is not None}
