"""Confirming removals that wait, and objecting to them. Whoever opened the session commits.

An erasure, and a period by which more goes than before, waits for as long as its tenant's `objection_hours`
say. Meanwhile one identity decides: another than who asked may confirm, and whoever may hold or ask may
object. The database refuses all else, and a tombstone whose removal waits.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Select, exists, func, insert, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.evidence.entry import new_salt
from service.evidence.payloads import Kind, payload_of
from service.retention.holds import announce
from service.retention.placing import NotAllowedStepError
from service.store.base import values_of
from service.store.erasure.tables import Erasure, ErasureState
from service.store.evidence.append import append
from service.store.retention.tables import Decision, RemovalDecision, RetentionVersion
from service.store.triage import Actor

RemovalKind = Literal["erasure", "retention"]


class Removal(NamedTuple):
    """An erasure or a retention version that somebody decides on."""

    id: uuid.UUID
    kind: RemovalKind


class Asked(NamedTuple):
    """How many removals of a kind were asked for that had to wait, of the transaction's tenant."""

    kind: RemovalKind
    ever: int
    waiting: int
    """Of them those to which somebody may still object."""


def decide(session: Session, removal: Removal, decision: Decision, reason: str, actor: Actor) -> None:
    """Confirm the removal, or object to it: the first who does decides.

    Raises NotAllowedStepError when it does not wait, was decided on, or was asked for by who confirms.
    """
    announce(session)  # or rows could go while somebody objects
    column = RemovalDecision.erasure_id if removal.kind == "erasure" else RemovalDecision.version_id
    asked_by = session.scalar(_waiting(removal))
    if asked_by is None:
        raise NotAllowedStepError(
            "not_waiting",
            "it does not wait for anybody: it was confirmed, objected to, or the time to object is over."
            " A legal hold keeps what is still there",
        )
    salt = new_salt()
    insertion = insert(RemovalDecision).values(
        {
            "id": uuid.uuid4(),
            column.key: removal.id,
            "decision": decision,
            "asked_by": asked_by,
            "reason": reason,
            **actor._asdict(),
            "log_salt": salt,
        }
    )
    try:
        with session.begin_nested():
            row = values_of(session.scalars(insertion.returning(RemovalDecision)).one())
    except IntegrityError as error:
        if "ck_removal_decisions_other" in str(error.orig):
            raise NotAllowedStepError(
                "other_identity_needed",
                "this key or person, or a key of which one made the other, asked for it, so somebody else"
                " has to confirm it",
            ) from error
        raise NotAllowedStepError(
            "decided_meanwhile", "somebody else decided just now: read it again"
        ) from error
    append(session, Kind.REMOVAL_DECISION, [payload_of(Kind.REMOVAL_DECISION, row)], [salt])


def decisions_of(
    session: Session, kind: RemovalKind, ids: Collection[uuid.UUID]
) -> Mapping[uuid.UUID, RemovalDecision]:
    """Return what was decided, by the removal's id."""
    column = RemovalDecision.erasure_id if kind == "erasure" else RemovalDecision.version_id
    found = session.execute(select(column, RemovalDecision).where(column.in_(ids)))
    return {removal: made for removal, made in found if removal is not None}


def count_asked(session: Session, tenant: uuid.UUID, now: dt.datetime) -> Sequence[Asked]:
    """Return how many removals had to wait, and how many do at ``now``, by kind."""
    counted: list[Asked] = []
    for kind, table in _TABLES.items():
        waits = _is_waiting(kind, now)
        query = select(func.count(table.id), func.count(table.id).filter(waits)).where(
            table.tenant_id == tenant, table.objectable_until.is_not(None)
        )
        counted.append(Asked(kind, *session.execute(query).one()))
    return counted


_TABLES: Mapping[RemovalKind, type[Erasure] | type[RetentionVersion]] = {
    "erasure": Erasure,
    "retention": RetentionVersion,
}


def _waiting(removal: Removal) -> Select[str | None]:
    """Return the query for who asked for it, which finds nothing when it does not wait."""
    table = _TABLES[removal.kind]
    is_waiting = _is_waiting(removal.kind, None)
    return select(table.asked_by).where(table.id == removal.id, is_waiting)


def _is_waiting(kind: RemovalKind, now: dt.datetime | None) -> ColumnElement[bool]:
    table = _TABLES[kind]
    column = RemovalDecision.erasure_id if kind == "erasure" else RemovalDecision.version_id
    is_decided = exists(select(RemovalDecision.id).where(column == table.id).correlate(table))
    is_open = Erasure.state == ErasureState.OPEN if table is Erasure else literal(value=True)
    at = func.clock_timestamp() if now is None else literal(now)
    return (table.objectable_until > at) & ~is_decided & is_open
