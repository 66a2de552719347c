"""Reading the exports that somebody may know of."""

import uuid
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, false, select
from sqlalchemy.orm import Session

from service.store.exports.tables import Export
from service.store.read.page import Page, Position, older_than
from service.store.triage import Actor


class Own(NamedTuple):
    """The exports that alone are met by whoever is for some models: those that he asked for.

    What was asked for with more models than he has now is none of them.
    """

    by: Actor
    models: Collection[str]

    def condition(self) -> ColumnElement[bool]:
        """Return the condition that holds for them."""
        by = self.by
        if by.key_id is None and by.person is None:
            return false()
        named = {"key_id": by.key_id} if by.key_id else {"issuer": by.issuer, "person": by.person}
        is_his = [getattr(Export, column) == value for column, value in named.items()]
        return and_(*is_his, Export.models.contained_by(list(self.models)))


def list_exports(session: Session, own: Own | None, after: Position | None, limit: int) -> Page[Export]:
    """Return one page of exports, newest first; ``own``: those that alone are met."""
    query = select(Export)
    if own is not None:
        query = query.where(own.condition())
    if after is not None:
        query = query.where(older_than(Export.requested_at, Export.id, after))
    query = query.order_by(Export.requested_at.desc(), Export.id.desc()).limit(limit + 1)
    rows = list(session.scalars(query))
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], None if last is None else Position(last.requested_at, last.id))


def get_export(session: Session, export_id: uuid.UUID, own: Own | None) -> Export | None:
    """Return an export; None when there is none, or it is not one that may be met."""
    query = select(Export).where(Export.id == export_id)
    return session.scalar(query if own is None else query.where(own.condition()))
