"""A flag as answered: with what it stands on, and whether its false-positive rate is known."""

import datetime as dt
import uuid
from typing import Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.schemas.explanation import DecoderReference
from service.store.read import flags


class Flag(Answer):
    """A concept found on a capture at enough positions of verified explanations."""

    id: uuid.UUID
    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    request_id: str = Field(
        description="The audited request, as its client said; others may share it.", examples=["chat-7f3a"]
    )
    capture_id: uuid.UUID | None = Field(
        description="The capture that it was raised on; null when that was stored before captures had one."
    )
    layer: int = Field(examples=[23])
    concept: str = Field(examples=["weapons"])
    concepts_digest: str = Field(description="SHA-256 of the concept definitions in force.")
    severity: str = Field(description="`info`, `warning` or `critical`.", examples=["critical"])
    hypothesis: Literal[True] = Field(
        default=True, description="Always true: a flag rests on explanations."
    )
    positions_matched: int = Field(
        description="Positions whose verified explanation matched.", examples=[3]
    )
    positions_required: int = Field(description="How many it takes.", examples=[2])
    positions_verified: int = Field(
        description="The denominator: positions of this capture with a verified explanation.", examples=[14]
    )
    false_positive_rate: float | None = Field(
        description="Calibrated rate of this flag on benign requests; null when it is not calibrated."
    )
    calibrated: bool = Field(description="Whether `false_positive_rate` is known.")
    decoder: DecoderReference
    first_captured_at: dt.datetime = Field(description="Earliest matching capture, UTC.")
    last_captured_at: dt.datetime = Field(description="Latest matching capture, UTC.")
    raised_at: dt.datetime = Field(description="When the flag was first stored, UTC; the listing's order.")
    updated_at: dt.datetime = Field(description="When its evidence last grew, UTC.")


class FlagPage(Answer):
    """One page of flags, newest raised first."""

    items: list[Flag]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def flag(view: flags.View) -> Flag:
    """Return the answer for one flag."""
    row = view.flag
    return Flag(
        id=row.id,
        model=view.model,
        request_id=row.request_id,
        capture_id=row.capture_id,
        layer=row.layer,
        concept=row.concept,
        concepts_digest=row.concepts_digest,
        severity=row.severity,
        positions_matched=row.positions_matched,
        positions_required=row.positions_required,
        positions_verified=row.positions_verified,
        false_positive_rate=row.false_positive_rate,
        calibrated=row.false_positive_rate is not None,
        decoder=DecoderReference.of(view.decoder),
        first_captured_at=row.first_captured_at,
        last_captured_at=row.last_captured_at,
        raised_at=row.created_at,
        updated_at=row.updated_at,
    )
