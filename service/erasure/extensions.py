"""What other rooms add to an erasure: they register here, so that this one imports none of them."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from service.erasure.target import OfCapture, Target

Eraser = Callable[[Session, Target], int]
"""Erases what a target is about from somewhere else, such as exports, and returns how much that was.

It is called in a transaction of the target's tenant, in every sweep, and must be repeatable.
"""
Keeper = Callable[[OfCapture], ColumnElement[bool] | None]
"""Returns a condition, correlated on the table, for rows that must stay, as those under a legal hold."""

ERASERS: Final[list[Eraser]] = []
KEEPERS: Final[list[Keeper]] = []
"""A transaction asks these before each deletion."""
FREEZERS: Final[list[Callable[[Session], None]]] = []
"""Called first in each transaction that deletes: what `KEEPERS` say must not change until it ends."""


def stays(table: OfCapture) -> list[ColumnElement[bool]]:
    """Return the conditions for rows of the table that must stay."""
    found = (keeper(table) for keeper in KEEPERS)
    return [one for one in found if one is not None]
