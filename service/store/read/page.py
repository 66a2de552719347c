"""Keyset pages: newest first by (time, id), where neither ever changes once a row is stored.

A reader that follows the positions sees every row that existed when it started exactly once,
whatever is inserted meanwhile.
"""

import datetime as dt
import uuid
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.orm import InstrumentedAttribute

T = TypeVar("T")


class Position(NamedTuple):
    """Where a page ended: the sort key of its last row."""

    at: dt.datetime
    id: uuid.UUID
    rank: int | None = None
    """Before both, in a listing that goes by it."""


class Page(NamedTuple, Generic[T]):
    """Rows of one page, and where the next one starts; None when this was the last."""

    items: list[T]
    next: Position | None


def older_than(
    at: InstrumentedAttribute[dt.datetime], identity: InstrumentedAttribute[uuid.UUID], position: Position
) -> ColumnElement[bool]:
    """Return the condition for rows that come after ``position``, newest first."""
    return tuple_(at, identity) < tuple_(position.at, position.id)
