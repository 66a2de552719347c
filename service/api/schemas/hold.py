"""Legal holds as answered, and as somebody asks for them."""

import datetime as dt
import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.parameters import Name, Note, RequestId, SubjectKey, Time, TraceId
from service.api.schemas.answer import Answer, Attribution
from service.retention.placing import Scope, View
from service.store.retention.tables import LiftStep


class AskedScope(BaseModel):
    """What a hold shall cover: whatever fits all that is given.

    All but the period are of captures: one that fits is covered whole, with its samples, explanations,
    flags and incidents.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name | None = Field(default=None, description="Served model name; null: all of the tenant.")
    captured_from: Time | None = Field(default=None, description="Captured at this time or later.")
    captured_to: Time | None = Field(default=None, description="Captured before this time.")
    request: RequestId | None = Field(
        default=None,
        description="An id of the audited request; all captures that have it among their names.",
    )
    capture_id: uuid.UUID | None = Field(default=None, description="One capture.")
    trace_id: TraceId | None = Field(default=None)
    concept: Name | None = Field(
        default=None, description="Captures with a flag of this concept, or a reading that matches it."
    )
    subject: SubjectKey | None = Field(default=None)

    @model_validator(mode="after")
    def _is_a_scope(self) -> "AskedScope":
        if all(value is None for value in dict(self).values()):
            raise PydanticCustomError(
                "empty_scope",
                "give at least one field; for everything, captured_from of 1970-01-01T00:00:00Z",
            )
        if self.captured_from and self.captured_to and self.captured_from >= self.captured_to:
            raise PydanticCustomError("empty_range", "captured_from must be earlier than captured_to")
        return self


class NewLegalHold(BaseModel):
    """A hold to be placed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: AskedScope
    reason: Note = Field(
        description="Why nothing of it may go. It cannot be changed later: write no personal data into it."
    )
    reference: Name | None = Field(default=None, description="A case's number, to find it by.")


class Lift(BaseModel):
    """A step to lift a hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Note = Field(description="Why it may end. It cannot be changed later.")


class HoldScope(Answer):
    """What a hold covers: whatever fits all that is not null. It says what to keep and nothing of it."""

    model: str | None = Field(description="Served model name.")
    captured_from: dt.datetime | None = Field(description="Inclusive, UTC.")
    captured_to: dt.datetime | None = Field(description="Exclusive, UTC.")
    request: str | None = Field(description="An id of the audited request.")
    capture_id: uuid.UUID | None
    trace_id: str | None
    concept: str | None = Field(
        description="Captures with a flag of this concept, or a reading that matches it."
    )
    subject: str | None = Field(description="Captures of this data subject, by subject key.")


class LiftTaken(Attribution):
    """One of the two steps that end a hold."""

    step: Literal["asked", "confirmed"] = Field(description="What it was.")
    reason: str
    at: dt.datetime = Field(description="UTC.")


class LegalHold(Attribution):
    """A hold, and who placed it. It never changes; what ends it is written beside it."""

    id: uuid.UUID
    state: Literal["in_force", "lift_asked", "lifted"] = Field(
        description="As it stands now; with `lift_asked` it is in force until somebody else confirms."
    )
    scope: HoldScope
    reason: str
    reference: str | None
    placed_at: dt.datetime = Field(description="UTC; the listing's order.")
    lifts: list[LiftTaken] = Field(description="The steps to lift it that were taken, in their order.")


class LegalHoldPage(Answer):
    """One page of holds, newest first."""

    as_of: dt.datetime = Field(description="The time at which those listed were in force, UTC.")
    items: list[LegalHold]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def store_scope(asked: AskedScope) -> Scope:
    """Return the scope as the store takes it."""
    return Scope(**dict(asked))


def legal_hold(view: View) -> LegalHold:
    """Return the answer for one hold."""
    row = view.hold
    names = row.request_names
    return LegalHold(
        id=row.id,
        state=_state(view),
        scope=HoldScope(
            model=view.model,
            captured_from=row.captured_from,
            captured_to=row.captured_to,
            request=names[0] if names else None,
            capture_id=row.capture_id,
            trace_id=row.trace_id,
            concept=row.concept,
            subject=row.subject,
        ),
        reason=row.reason,
        reference=row.reference,
        **LegalHold.names(row),
        placed_at=row.placed_at,
        lifts=[LiftTaken.model_validate(one) for one in view.lifts],
    )


def _state(view: View) -> Literal["in_force", "lift_asked", "lifted"]:
    if not view.lifts:
        return "in_force"
    is_lifted = any(one.step == LiftStep.CONFIRMED for one in view.lifts)
    return "lifted" if is_lifted else "lift_asked"
