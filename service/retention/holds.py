"""Which rows are under a legal hold in force, as conditions for queries and deletions.

Whoever removes rows calls `freeze` first in the transaction, and asks `covers` in a statement after it:
else a hold that is placed meanwhile would come too late for rows that it covers.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, exists, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from service.store.retention.tables import LegalHold, LegalHoldLift, LiftStep
from service.store.tables import (
    CanaryFlag,
    CanaryReading,
    ConceptMatch,
    Explanation,
    Flag,
    Incident,
    RequestName,
    RequestTest,
    Sample,
)
from service.store.tenants import scope

_LOCK: Final = 583_146_022
Standing = type[Flag] | type[Incident] | type[RequestTest]
_OfCapture = type[Sample] | type[RequestName] | Standing
STANDING: Final[tuple[Standing, ...]] = (Flag, Incident, RequestTest)
"""What stands on explanations."""
_Holds = type[LegalHold]


def freeze(session: Session) -> None:
    """Let no hold of the transaction's tenant be placed until it ends. Removers wait for no other."""
    session.execute(select(func.pg_advisory_xact_lock_shared(_LOCK, _tenant_number())))


def announce(session: Session) -> None:
    """Wait until nobody removes rows of the transaction's tenant, and let nobody begin until it ends."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK, _tenant_number())))


def covers() -> ColumnElement[bool]:
    """Return the condition, correlated on `Sample`, that a hold in force covers the row.

    Explanations, their matches and names of a capture are covered with the sample that they are of.
    """
    return _covers(Sample, Sample.captured_at, Sample.captured_at)


def covers_evidence() -> ColumnElement[bool]:
    """Return the condition, correlated on `Sample`, that a hold covers the row or what stands on it.

    A hold of a period may cover a flag or incident whose samples lie partly before or behind it.
    """
    stand_on = [
        exists(select(one.id).where(_is_same_capture(one, Sample), covers_standing(one)).correlate(Sample))
        for one in map(aliased, STANDING)
    ]
    return or_(covers(), *stand_on)


def covers_standing(table: Standing) -> ColumnElement[bool]:
    """Return the condition, correlated on the table, that a hold in force covers the row."""
    return _covers(table, table.first_captured_at, table.last_captured_at)


def covers_names() -> ColumnElement[bool]:
    """Return the condition, correlated on `RequestName`, that a hold in force covers the row."""
    return _covers(RequestName, RequestName.captured_at, RequestName.captured_at)


def covers_canaries(table: type[CanaryReading] | type[CanaryFlag]) -> ColumnElement[bool]:
    """Return the condition, correlated on a canary's table, that a hold in force may cover the row.

    It looks at period and capture alone: not every canary's row has the rest, and one too many stays.
    """
    hold = aliased(LegalHold)
    at = table.captured_at if table is CanaryReading else table.stored_at
    return exists(
        select(hold.id)
        .where(
            hold.tenant_id == table.tenant_id,
            is_in_force(hold),
            _unset_or(hold.captured_from, at >= hold.captured_from),
            _unset_or(hold.captured_to, at < hold.captured_to),
            _unset_or(hold.capture_id, hold.capture_id == table.capture_id),
        )
        .correlate(table)
    )


def is_in_force(hold: _Holds = LegalHold, at: dt.datetime | None = None) -> ColumnElement[bool]:
    """Return the condition, correlated on the hold, that it was in force at a time; None: it is now."""
    lift = aliased(LegalHoldLift)
    lifted = exists().where(lift.hold_id == hold.id, lift.step == LiftStep.CONFIRMED)
    if at is None:
        return ~lifted
    return and_(hold.placed_at <= at, ~lifted.where(lift.at <= at))


def list_reaching(
    session: Session, model: uuid.UUID | None, start: dt.datetime, end: dt.datetime
) -> Sequence[uuid.UUID]:
    """Return the holds in force of the transaction's tenant that may cover something of a period.

    They are those whose model and period fit; ``model`` None: of any. The first placed is first.
    """
    query = select(LegalHold.id).where(
        LegalHold.tenant_id == scope.tenant_of(session),
        is_in_force(),
        _unset_or(LegalHold.model_id, true() if model is None else LegalHold.model_id == model),
        _unset_or(LegalHold.captured_from, LegalHold.captured_from < end),
        _unset_or(LegalHold.captured_to, LegalHold.captured_to > start),
    )
    return session.scalars(query.order_by(LegalHold.placed_at, LegalHold.id)).all()


def _tenant_number() -> ColumnElement[int]:
    return func.hashtext(func.coalesce(func.current_setting("subtext.tenant", True), ""))  # noqa: FBT003


def _covers(
    owner: _OfCapture, first: SQLColumnExpression[dt.datetime], last: SQLColumnExpression[dt.datetime]
) -> ColumnElement[bool]:
    hold = aliased(LegalHold)
    # The holds are few and the rows many: each row is held against all of them.
    return exists(
        select(hold.id)
        .where(
            hold.tenant_id == owner.tenant_id,
            is_in_force(hold),
            _unset_or(hold.model_id, hold.model_id == owner.model_id),
            _unset_or(hold.captured_from, last >= hold.captured_from),
            _unset_or(hold.captured_to, first < hold.captured_to),
            _unset_or(hold.capture_id, hold.capture_id == owner.capture_id),
            _unset_or(hold.request_names, _has_name(owner, hold)),
            _unset_or(hold.trace_id, _has(owner, hold, "trace_id")),
            _unset_or(hold.concept, _has_concept(owner, hold)),
            _unset_or(hold.subject, _has(owner, hold, "subject")),
        )
        .correlate(owner)
    )


def _unset_or(column: SQLColumnExpression[Any], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return or_(column.is_(None), condition)


def _has_name(owner: _OfCapture, hold: _Holds) -> ColumnElement[bool]:
    name = aliased(RequestName)
    named = exists(
        select(name.capture)
        .where(name.name == func.any(hold.request_names), _is_same_capture(name, owner))
        .correlate(owner, hold)
    )
    return or_(owner.request_id == func.any(hold.request_names), named)


def _has(owner: _OfCapture, hold: _Holds, column: Literal["trace_id", "subject"]) -> ColumnElement[bool]:
    """Return the condition that a sample of the capture has what the hold says, as only samples have it."""
    sample = aliased(Sample)
    return exists(
        select(sample.id)
        .where(getattr(sample, column) == getattr(hold, column), _is_same_capture(sample, owner))
        .correlate(owner, hold)
    )


def _has_concept(owner: _OfCapture, hold: _Holds) -> ColumnElement[bool]:
    flag, sample, reading, match = (
        aliased(Flag),
        aliased(Sample),
        aliased(Explanation),
        aliased(ConceptMatch),
    )
    flagged = exists(
        select(flag.id)
        .where(flag.concept == hold.concept, _is_same_capture(flag, owner))
        .correlate(owner, hold)
    )
    matched = exists(
        select(sample.id)
        .join(reading, reading.sample_id == sample.id)
        .join(match, match.explanation_id == reading.id)
        .where(match.concept == hold.concept, _is_same_capture(sample, owner))
        .correlate(owner, hold)
    )
    return or_(flagged, matched)


def _is_same_capture(one: Any, other: _OfCapture) -> ColumnElement[bool]:
    before_captures = and_(
        one.capture_id.is_(None), other.capture_id.is_(None), one.request_id == other.request_id
    )
    return and_(one.model_id == other.model_id, or_(one.capture_id == other.capture_id, before_captures))
