"""Reading the exports that a key may know of."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.exports.tables import Export
from service.store.read.page import Page, Position, older_than


def list_exports(
    session: Session, own: uuid.UUID | None, after: Position | None, limit: int
) -> Page[Export]:
    """Return one page of exports, newest first; ``own``: the key whose exports alone are met."""
    query = select(Export)
    if own is not None:
        query = query.where(Export.key_id == own)
    if after is not None:
        query = query.where(older_than(Export.requested_at, Export.id, after))
    query = query.order_by(Export.requested_at.desc(), Export.id.desc()).limit(limit + 1)
    rows = list(session.scalars(query))
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], None if last is None else Position(last.requested_at, last.id))


def get_export(session: Session, export_id: uuid.UUID, own: uuid.UUID | None) -> Export | None:
    """Return an export; None when there is none, or it is not one that may be met."""
    found = session.get(Export, export_id)
    return None if found is None or (own is not None and found.key_id != own) else found
