"""Finding explanations by words inside them, newest first, a bounded part of the store a page.

A page says how far it looked. What it costs is bounded: it looks into three weeks, and of words that are
too common for their index it reads the newest readings instead, so many and no more.
"""

import datetime as dt
import uuid
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from service.store.days import earlier, later
from service.store.read import explanations
from service.store.read.page import Page, Position

_AT_ONCE: Final = dt.timedelta(days=21)
_CLOCKS_DIFFER: Final = dt.timedelta(days=1)
_PLACES_AT_MOST: Final = 512
"""Looked up at once."""
_PLACES_OF_PAGE: Final = 1024
_FIRST: Final = uuid.UUID(int=0)
# `querytree` is what of a query an index can find; 'T' is everything.
_ASKED: Final = text("""
    SELECT asked::text, querytree(asked) NOT IN ('', 'T')
    FROM (SELECT websearch_to_tsquery('simple', :words) AS asked) AS query
""")
_FIND: Final = text("""
    SELECT found_at, found_id, reached_at, reached_id FROM subtext_find_words(
        :words, CAST(:since AS timestamptz), CAST(:until AS timestamptz), CAST(:after_at AS timestamptz),
        CAST(:after_id AS uuid), :wanted
    )
""")


class NoWordsError(ValueError):
    """Words by which nothing can be found: none at all, or only words that are to be left out."""


class Found(NamedTuple):
    """One page of what was found, and which part of the period was searched for it."""

    page: Page[explanations.View]
    query: str
    """What was looked for, as PostgreSQL's tsquery."""
    since: dt.datetime | None
    """All that was captured since is searched, up to the page's beginning; None: all there is."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing of what was asked for is left to search."""
        return self.page.next is None


class _Places(NamedTuple):
    found: list[Position]
    reached: Position | None
    """How far was looked; None: as far as was asked for."""


def search(
    session: Session, wanted: explanations.Filter, after: Position | None, limit: int, now: dt.datetime
) -> Found:
    """Return a page of the wanted explanations, which has words, and a request or a first time.

    Raises NoWordsError. A page may be short, or empty, and still have a next one.
    """
    query, can_be_found = session.execute(_ASKED, {"words": wanted.words}).one()
    if not can_be_found:
        raise NoWordsError
    known = explanations.look_up(session, wanted)
    if known is None:
        return Found(Page([], None), query, wanted.captured_after)
    if wanted.request_id is not None:
        page = explanations.list_explanations(session, wanted, after, limit)
        since = wanted.captured_after if page.next is None else page.next.at
        return Found(page, query, since)
    return _search_days(session, _Search(wanted, known, query, after, now), limit)


class _Search(NamedTuple):
    wanted: explanations.Filter
    known: explanations.Known
    query: str
    after: Position | None
    now: dt.datetime


def _search_days(session: Session, asked: _Search, limit: int) -> Found:
    until = asked.wanted.captured_before or later(asked.now, _CLOCKS_DIFFER)
    since = earlier(until if asked.after is None else asked.after.at, _AT_ONCE)
    first = asked.wanted.captured_after or since
    span = (max(since, first), until)
    views: list[explanations.View] = []
    after, at_once, looked_up = asked.after, limit + 1, 0
    while True:
        places = _find(session, asked.wanted, span, after, at_once)
        missing = limit + 1 - len(views)
        views += explanations.list_at(session, places.found, asked.wanted, asked.known, missing)
        if len(views) > limit:
            last = views[limit - 1].explanation
            return _found(asked, views[:limit], Position(last.captured_at, last.id))
        looked_up += len(places.found)
        if places.reached is not None:
            return _found(asked, views, places.reached)
        if len(places.found) < at_once:
            return _found(asked, views, None if span[0] == first else Position(span[0], _FIRST))
        after = places.found[-1]
        if looked_up >= _PLACES_OF_PAGE:
            return _found(asked, views, after)
        at_once = min(2 * at_once, _PLACES_AT_MOST)


def _found(asked: _Search, views: list[explanations.View], reached: Position | None) -> Found:
    since = asked.wanted.captured_after if reached is None else reached.at
    return Found(Page(views, reached), asked.query, since)


def _find(
    session: Session,
    wanted: explanations.Filter,
    span: tuple[dt.datetime, dt.datetime],
    after: Position | None,
    at_most: int,
) -> _Places:
    values: dict[str, Any] = {"words": wanted.words, "since": span[0], "until": span[1], "wanted": at_most}
    values |= {"after_at": after and after.at, "after_id": after and after.id}
    found_at, found_id, reached_at, reached_id = session.execute(_FIND, values).one()
    reached = None if reached_id is None else Position(reached_at, reached_id)
    return _Places([Position(*place) for place in zip(found_at, found_id, strict=True)], reached)
