"""Conditions by which PostgreSQL looks into the partitions of a few days and not into all of them.

They narrow nothing: what was captured of one request lies within `REQUEST_LASTS`. Bounds that are values,
and no columns, spare the planner the other partitions too, which costs more than reading them does.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, and_

from service.store.tables import ConceptMatch, Explanation, Sample

REQUEST_LASTS: Final = dt.timedelta(days=1)
"""Longer than any request."""
_FIRST: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)


def near(
    column: SQLColumnExpression[dt.datetime], first: dt.datetime, last: dt.datetime | None = None
) -> ColumnElement[bool]:
    """Return the condition for what may be of requests with a row between these times, or at the first."""
    return between(column, earlier(first, REQUEST_LASTS), later(last or first, REQUEST_LASTS))


def between(
    column: SQLColumnExpression[dt.datetime],
    first: dt.datetime | SQLColumnExpression[dt.datetime],
    last: dt.datetime | SQLColumnExpression[dt.datetime],
) -> ColumnElement[bool]:
    """Return the condition for times from the first to the last, both inclusive."""
    return and_(column >= first, column <= last)


def near_capture(
    capture: uuid.UUID | None,
    columns: Sequence[SQLColumnExpression[dt.datetime]],
    first: dt.datetime,
    last: dt.datetime | None = None,
) -> list[ColumnElement[bool]]:
    """Return the conditions for rows of the capture, one of which was captured at each of these times.

    Without an identity, as all was before captures had one, it stands for any number of requests.
    """
    return [] if capture is None else [near(column, first, last) for column in columns]


def earlier(at: dt.datetime, by: dt.timedelta) -> dt.datetime:
    """Return the time so much before, or the first that there is."""
    return at - by if at - _FIRST > by else _FIRST


def later(at: dt.datetime, by: dt.timedelta) -> dt.datetime:
    """Return the time so much after, or the last that there is."""
    return at + by if _LAST - at > by else _LAST


def is_sample_of_explanation() -> ColumnElement[bool]:
    """Return the condition that joins samples to their explanations.

    The times are the same but for rows of before there were days: of a position that its engine computed
    twice, an explanation by a second decoder may have the time of the second one.
    """
    at: Any = Sample.captured_at
    return and_(
        Sample.id == Explanation.sample_id,
        at >= Explanation.captured_at - REQUEST_LASTS,
        at <= Explanation.captured_at + REQUEST_LASTS,
    )


def is_match_of_explanation() -> ColumnElement[bool]:
    """Return the condition that joins matches to their explanations."""
    return and_(
        ConceptMatch.explanation_id == Explanation.id, ConceptMatch.captured_at == Explanation.captured_at
    )
