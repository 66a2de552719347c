"""Conditions by which PostgreSQL looks into the partitions of a few days and not into all of them.

They narrow nothing: what was captured of one request lies within `REQUEST_LASTS`. Bounds that are values,
and no columns, spare the planner the other partitions too, which costs more than reading them does.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, bindparam, false, or_

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


def near_any(column: SQLColumnExpression[dt.datetime], times: Sequence[dt.datetime]) -> ColumnElement[bool]:
    """Return the condition for what may be of requests with a row at one of these times."""
    return or_(false(), *(near(column, *span) for span in _spans(times, 2 * REQUEST_LASTS)))


def among(column: SQLColumnExpression[dt.datetime], times: Iterable[dt.datetime]) -> ColumnElement[bool]:
    """Return a condition that is met at all of these times, and in no partition without one of them.

    By a few spans: a list of times would be sorted again for each row that is looked up by one of them.
    """
    return or_(false(), *(between(column, *span) for span in _spans(times, dt.timedelta(days=1))))


def within(column: SQLColumnExpression[dt.datetime], bounds: int, prefix: str = "") -> ColumnElement[bool]:
    """Return the condition for so many values of `spans_of`, or `spans_near`, which are given by name."""
    names = [f"{prefix}{number}" for number in range(bounds)]
    pairs = zip(names[::2], names[1::2], strict=True)
    return or_(false(), *(and_(column >= bindparam(one), column <= bindparam(two)) for one, two in pairs))


def spans_of(times: Iterable[dt.datetime], prefix: str = "") -> dict[str, dt.datetime]:
    """Return values for `within`: with them it is met at all of these times, and in no day without one."""
    return _named(_spans(times, dt.timedelta(days=1)), prefix)


def spans_near(times: Iterable[dt.datetime], prefix: str = "") -> dict[str, dt.datetime]:
    """Return values for `within`: with them it is met by what `near_any` finds at these times."""
    spans = _spans(times, 2 * REQUEST_LASTS)
    return _named([(earlier(one, REQUEST_LASTS), later(two, REQUEST_LASTS)) for one, two in spans], prefix)


def _named(spans: Iterable[tuple[dt.datetime, dt.datetime]], prefix: str) -> dict[str, dt.datetime]:
    return {f"{prefix}{number}": at for number, at in enumerate(at for span in spans for at in span)}


def _spans(times: Iterable[dt.datetime], gap: dt.timedelta) -> list[tuple[dt.datetime, dt.datetime]]:
    """Return the spans that the times lie in, with no more than the gap between neighbours in one."""
    spans: list[tuple[dt.datetime, dt.datetime]] = []
    for at in sorted(times):
        if spans and at - spans[-1][1] <= gap:
            spans[-1] = (spans[-1][0], at)
        else:
            spans.append((at, at))
    return spans


def is_sample_of_explanation(explanation: Any = Explanation) -> ColumnElement[bool]:
    """Return the condition that joins samples to their explanations, or to those of this alias.

    The times are the same but for rows of before there were days: of a position that its engine computed
    twice, an explanation by a second decoder may have the time of the second one.
    """
    return and_(
        Sample.id == explanation.sample_id,
        between(
            Sample.captured_at,
            explanation.captured_at - REQUEST_LASTS,
            explanation.captured_at + REQUEST_LASTS,
        ),
    )


def is_match_of_explanation(explanation: Any = Explanation) -> ColumnElement[bool]:
    """Return the condition that joins matches to their explanations, or to those of this alias."""
    return and_(
        ConceptMatch.explanation_id == explanation.id, ConceptMatch.captured_at == explanation.captured_at
    )
