"""Reading the access log: who did what, and what each key may do and did."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from service.store.access.tables import AccessEntry, Action
from service.store.identity import capture_key
from service.store.read.explanations import find_sample
from service.store.read.page import Page, Position, older_than
from service.store.tables import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries to list; None means any."""

    key_id: uuid.UUID | None = None
    action: Action | None = None
    purpose: str | None = None
    subject: uuid.UUID | None = None  # an explanation, a capture, an incident or a key
    entered_after: dt.datetime | None = None  # inclusive
    entered_before: dt.datetime | None = None  # exclusive


class Usage(NamedTuple):
    """What one key did in a period."""

    text_reads: int = 0
    """Answers that showed text."""
    texts_read: int = 0
    """Explanations in them; one that was read twice counts twice."""
    writes: int = 0
    denials: int = 0
    """Those without an entry of their own too, as far as a later entry counts them."""


class Right(NamedTuple):
    """A key and what it did."""

    key: ApiKey
    usage: Usage


def list_entries(session: Session, wanted: Filter, after: Position | None, limit: int) -> Page[AccessEntry]:
    """Return one page, newest first."""
    query = select(AccessEntry).order_by(AccessEntry.at.desc(), AccessEntry.id.desc())
    query = _narrowed(session, query, wanted)
    if after is not None:
        query = query.where(older_than(AccessEntry.at, AccessEntry.id, after))
    entries = list(session.scalars(query.limit(limit + 1)))
    page = entries[:limit]
    last = page[-1] if len(entries) > limit else None
    return Page(page, Position(last.at, last.id) if last else None)


def list_rights(
    session: Session, start: dt.datetime, end: dt.datetime, after: Position | None, limit: int
) -> Page[Right]:
    """Return one page of keys, revoked and expired ones too, newest first; used from start up to end."""
    query = select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
    if after is not None:
        query = query.where(older_than(ApiKey.created_at, ApiKey.id, after))
    keys = list(session.scalars(query.limit(limit + 1)))
    page = keys[:limit]
    used = _count_usage(session, [key.id for key in page], start, end)
    last = page[-1] if len(keys) > limit else None
    rights = [Right(key, used.get(key.id, Usage())) for key in page]
    return Page(rights, Position(last.created_at, last.id) if last else None)


def _narrowed(session: Session, query: Select[AccessEntry], wanted: Filter) -> Select[AccessEntry]:
    equal = (
        (AccessEntry.key_id, wanted.key_id),
        (AccessEntry.action, wanted.action),
        (AccessEntry.purpose, wanted.purpose),
    )
    query = query.where(*(column == value for column, value in equal if value is not None))
    if wanted.subject is not None:
        query = query.where(_is_about(session, wanted.subject))
    if wanted.entered_after is not None:
        query = query.where(AccessEntry.at >= wanted.entered_after)
    if wanted.entered_before is not None:
        query = query.where(AccessEntry.at < wanted.entered_before)
    return query


def _is_about(session: Session, subject: uuid.UUID) -> ColumnElement[bool]:
    """Return the condition for entries that name it, or showed more of its capture than they name."""
    named = or_(AccessEntry.subject_ids.contains([subject]), AccessEntry.capture_ids.contains([subject]))
    sample = find_sample(session, subject)
    if sample is None:
        return named
    capture = capture_key(sample.capture_id, sample.model_id, sample.request_id)
    names_not_all = AccessEntry.subjects_total > func.cardinality(AccessEntry.subject_ids)
    return or_(named, and_(AccessEntry.capture_ids.contains([capture]), names_not_all))


def _count_usage(
    session: Session, keys: Sequence[uuid.UUID], start: dt.datetime, end: dt.datetime
) -> dict[uuid.UUID, Usage]:
    reads, writes = AccessEntry.action == Action.READ_TEXT, AccessEntry.action == Action.WRITE
    denials = func.sum(AccessEntry.suppressed + 1).filter(AccessEntry.action == Action.DENY)
    query = (
        select(
            AccessEntry.key_id,
            func.count().filter(reads),
            func.coalesce(func.sum(AccessEntry.subjects_total).filter(reads), 0),
            func.count().filter(writes),
            func.coalesce(denials, 0),
        )
        .where(AccessEntry.key_id.in_(keys), AccessEntry.at >= start, AccessEntry.at < end)
        .group_by(AccessEntry.key_id)
    )
    return {key: Usage(*counts) for key, *counts in session.execute(query) if key is not None}
