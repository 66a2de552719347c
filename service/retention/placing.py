"""Placing, listing and lifting legal holds. Whoever opened the session commits."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.evidence.entry import new_salt
from service.evidence.payloads import Kind, payload_of
from service.retention.holds import announce, is_in_force
from service.store import keys
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.read.names import names_of
from service.store.read.page import Page, Position, older_than
from service.store.retention.tables import LegalHold, LegalHoldLift, LiftStep
from service.store.tables import Model
from service.store.tenants import scope
from service.store.triage import Actor


class UnknownModelError(LookupError):
    """The tenant has no model of this name."""


class NotAllowedStepError(ValueError):
    """A step that a hold does not take any more, or not from whoever asks; ``code`` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a hold covers: whatever fits all that is set."""

    model: str | None = None
    """By its served name."""
    captured_from: dt.datetime | None = None
    captured_to: dt.datetime | None = None
    request: str | None = None
    """An id of the request, as for `GET /v1/requests/{id}`."""
    capture_id: uuid.UUID | None = None
    trace_id: str | None = None
    concept: str | None = None
    subject: str | None = None
    """By subject key."""


class View(NamedTuple):
    """A hold, its model's name, and the steps to lift it that were taken."""

    hold: LegalHold
    model: str | None
    lifts: Sequence[LegalHoldLift]


def place(session: Session, scope: Scope, reason: str, reference: str | None, actor: Actor) -> uuid.UUID:
    """Place a hold and return its id; it is in force from the commit on.

    It waits for whoever is removing rows, so that what it covers is there or was gone before. Raises
    UnknownModelError.
    """
    announce(session)
    criteria = asdict(scope)
    model, request = criteria.pop("model"), criteria.pop("request")
    salt = new_salt()
    insertion = insert(LegalHold).values(
        id=uuid.uuid4(),
        model_id=None if model is None else find_model(session, model),
        request_names=None if request is None else names_of(request),
        reason=reason,
        reference=reference,
        **actor._asdict(),
        log_salt=salt,
        **criteria,
    )
    row = values_of(session.scalars(insertion.returning(LegalHold)).one())
    append(session, Kind.LEGAL_HOLD, [payload_of(Kind.LEGAL_HOLD, row)], [salt])
    return uuid.UUID(str(row["id"]))


def lift(session: Session, hold: View, reason: str, actor: Actor) -> LiftStep:
    """Ask to lift the hold, or confirm what somebody else asked; return which of them it was.

    Raises NotAllowedStepError for a hold that is lifted, for the key or person that asked, and when
    somebody else takes the same step at the same time. The database refuses all of them by itself.
    """
    taken = {LiftStep(one.step): one for one in hold.lifts}
    if LiftStep.CONFIRMED in taken:
        raise NotAllowedStepError("already_lifted", "this hold was lifted before")
    asked = taken.get(LiftStep.ASKED)
    if asked is not None and _is_same(session, asked, actor):
        raise NotAllowedStepError(
            "other_key_needed",
            "this key or person, or a key of which one made the other, asked to lift the hold, so somebody"
            " else has to confirm it",
        )
    step = LiftStep.ASKED if asked is None else LiftStep.CONFIRMED
    salt = new_salt()
    insertion = insert(LegalHoldLift).values(
        id=uuid.uuid4(),
        hold_id=hold.hold.id,
        step=step,
        step_before=None if asked is None else LiftStep.ASKED,
        reason=reason,
        **actor._asdict(),
        log_salt=salt,
    )
    try:
        with session.begin_nested():
            row = values_of(session.scalars(insertion.returning(LegalHoldLift)).one())
    except IntegrityError as error:
        raise NotAllowedStepError(
            "lifted_meanwhile", "somebody else took this step just now: read the hold and decide anew"
        ) from error
    append(session, Kind.LEGAL_HOLD_LIFT, [payload_of(Kind.LEGAL_HOLD_LIFT, row)], [salt])
    return step


def _is_same(session: Session, asked: LegalHoldLift, actor: Actor) -> bool:
    """Tell whether both are of one key or one person, in whichever session, or of one key's making."""
    if actor.key_id is not None or asked.key_id is not None:
        return asked.key_id == actor.key_id or keys.are_of_one(session, asked.key_id, actor.key_id)
    return (asked.issuer, asked.person) == (actor.issuer, actor.person)


def get_hold(session: Session, hold_id: uuid.UUID) -> View | None:
    """Return one hold, or None."""
    hold = session.get(LegalHold, hold_id)
    return None if hold is None else _views(session, [hold])[0]


def list_holds(
    session: Session, at: dt.datetime, after: Position | None, limit: int, *, with_lifted: bool = False
) -> Page[View]:
    """Return one page of the holds that were in force at ``at``, newest first.

    ``with_lifted``: those too that were placed by then and lifted.
    """
    query = select(LegalHold).order_by(LegalHold.placed_at.desc(), LegalHold.id.desc())
    query = query.where(LegalHold.placed_at <= at if with_lifted else is_in_force(at=at))
    if after is not None:
        query = query.where(older_than(LegalHold.placed_at, LegalHold.id, after))
    holds = list(session.scalars(query.limit(limit + 1)))
    page = holds[:limit]
    last = page[-1] if len(holds) > limit else None
    return Page(_views(session, page), Position(last.placed_at, last.id) if last else None)


def find_model(session: Session, name: str) -> uuid.UUID:
    """Return the id of the tenant's model; raises UnknownModelError."""
    # Where row-level security does not narrow it, as for an owner, another tenant's may have the name.
    of_tenant = Model.tenant_id == scope.tenant_of(session)
    found = session.scalar(select(Model.id).where(Model.name == name, of_tenant))
    if found is None:
        raise UnknownModelError(name)
    return found


def _views(session: Session, holds: Sequence[LegalHold]) -> list[View]:
    query = select(LegalHoldLift).where(LegalHoldLift.hold_id.in_([hold.id for hold in holds]))
    lifts: dict[uuid.UUID, list[LegalHoldLift]] = {}
    for one in session.scalars(query.order_by(LegalHoldLift.at, LegalHoldLift.step)):
        lifts.setdefault(one.hold_id, []).append(one)
    of_models = select(Model.id, Model.name).where(Model.id.in_([hold.model_id for hold in holds]))
    models = {row.id: row.name for row in session.execute(of_models)}
    return [
        View(hold, None if hold.model_id is None else models.get(hold.model_id), lifts.get(hold.id, ()))
        for hold in holds
    ]
