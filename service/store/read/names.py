"""By what a request id finds something: the names that captures are stored under."""

import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, func, select, union, union_all
from sqlalchemy.orm import Session, aliased

from service.store.read.page import Position, older_than
from service.store.tables import Flag, Incident, RequestName, RequestTest, Sample
from subtext_sidecar.contract.request_id import bounded

_NO_CAPTURE: Final = uuid.UUID(int=0)


def names_of(request_id: str) -> list[str]:
    """Return under which names the request with this id may be stored.

    Names are bounded and cleaned before they are stored. Before they were, ids were stored as they came,
    but for those with a NUL, which PostgreSQL cannot keep.
    """
    return list(dict.fromkeys([bounded(request_id), *([] if "\x00" in request_id else [request_id])]))


def list_captures(
    session: Session,
    request_id: str,
    after: Position | None,
    limit: int,
    capture_id: uuid.UUID | None = None,
) -> Sequence[RequestName]:
    """Return the names of the captures under the id, newest capture first.

    It reads no more than ``limit`` of them for each name, however many there are.
    """
    newest_first = (RequestName.captured_at.desc(), RequestName.capture.desc())
    parts = []
    for name in names_of(request_id):
        part = select(RequestName).where(RequestName.name == name)
        if capture_id is not None:
            part = part.where(RequestName.capture_id == capture_id)
        if after is not None:
            part = part.where(older_than(RequestName.captured_at, RequestName.capture, after))
        # One name at a time: of several together PostgreSQL would sort all that there are.
        parts.append(select(part.order_by(*newest_first).limit(limit).subquery()))
    found = aliased(RequestName, union_all(*parts).subquery())
    query = select(found).order_by(found.captured_at.desc(), found.capture.desc())
    return session.scalars(query.limit(limit)).all()


def is_of_request(
    owner: type[Sample] | type[Flag] | type[Incident] | type[RequestTest], request_id: str
) -> ColumnElement[bool]:
    """Return the condition for rows of captures that have the id among their names."""
    names = names_of(request_id)
    named = select(RequestName.capture_id).where(RequestName.name.in_(names))
    captured = select(owner.id).where(owner.capture_id.in_(named))
    # Not by `or`, for which PostgreSQL would read the whole table.
    before_captures = select(owner.id).where(owner.request_id.in_(names), owner.capture_id.is_(None))
    return owner.id.in_(union(captured, before_captures))


def is_of_capture(
    owner: type[Sample] | type[Flag] | type[RequestTest], named: RequestName
) -> tuple[ColumnElement[Any], ...]:
    """Return the conditions for samples, flags or tests of the capture that has this name."""
    if named.capture_id is not None:
        return (owner.capture_id == named.capture_id, owner.model_id == named.model_id)
    of_before = (owner.request_id == named.request_id, owner.capture_id.is_(None))
    return (*of_before, owner.model_id == named.model_id)


def is_same_capture(one: SQLColumnExpression[Any], other: SQLColumnExpression[Any]) -> ColumnElement[bool]:
    """Return the condition that both are one capture, or none.

    It is an equality, unlike IS NOT DISTINCT FROM: PostgreSQL joins by equalities alone, and without this
    one only the request's id would tell rows apart, which clients choose.
    """
    return func.coalesce(one, _NO_CAPTURE) == func.coalesce(other, _NO_CAPTURE)
