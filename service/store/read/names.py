"""By what a request id finds something: the names that captures are stored under.

A name may be of any day, so it is looked up by functions of the database whose plans stay there, see
decision 28.
"""

import uuid
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    SQLColumnExpression,
    Text,
    Uuid,
    cast,
    func,
    select,
    text,
    union,
)
from sqlalchemy.orm import Session

from service.store.read.page import Position
from service.store.tables import Flag, Incident, RequestName, RequestTest, Sample
from subtext_sidecar.contract.request_id import bounded

_NO_CAPTURE: Final = uuid.UUID(int=0)
# One name at a time: of several together PostgreSQL would sort all that there are.
_CAPTURES: Final = text("""SELECT * FROM subtext_captures_named(
        CAST(:names AS text[]), CAST(:of_capture AS uuid), CAST(:before_at AS timestamptz),
        CAST(:before_capture AS uuid), :at_most
    ) ORDER BY captured_at DESC, capture DESC LIMIT :at_most""")


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

    It reads no more than ``limit`` of them for each name, however many there are, and looks into older days
    only where the newer ones have fewer.
    """
    values = {
        "names": names_of(request_id),
        "of_capture": capture_id,
        "before_at": after and after.at,
        "before_capture": after and after.id,
        "at_most": limit,
    }
    return session.scalars(select(RequestName).from_statement(_CAPTURES), values).all()


def count_captures(session: Session, request_id: str, at_most: int) -> int:
    """Return how many names of captures are stored under the id; ``at_most`` where there are more."""
    counted = func.subtext_count_named(_array_of(request_id), at_most, type_=Integer).column_valued()
    return session.scalar(select(counted)) or 0


def is_of_request(
    owner: type[Sample] | type[Flag] | type[Incident] | type[RequestTest], request_id: str
) -> ColumnElement[bool]:
    """Return the condition for rows of captures that have the id among their names."""
    names = names_of(request_id)
    named = select(func.subtext_capture_ids_named(_array_of(request_id), type_=Uuid).column_valued())
    captured = select(owner.id).where(owner.capture_id.in_(named))
    # Not by `or`, for which PostgreSQL would read the whole table.
    before_captures = select(owner.id).where(owner.request_id.in_(names), owner.capture_id.is_(None))
    return owner.id.in_(union(captured, before_captures))


def _array_of(request_id: str) -> ColumnElement[Any]:
    return cast(names_of(request_id), ARRAY(Text))


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
