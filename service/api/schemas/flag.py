"""A flag as answered: with what it stands on, and whether its false-positive rate is known."""

import datetime as dt
import uuid
from typing import Any, Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer, part, stored
from service.api.schemas.explanation import DecoderReference, decoder_part
from service.store.read import flags
from service.store.tables import Flag as FlagRow
from service.store.tables import FlagStatus


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
    concept_version: int | None = Field(
        description="Version of the concept's definition, which each model counts for itself; null when "
        "the file of concepts had none.",
        examples=[2],
    )
    concept_digest: str | None = Field(
        description="SHA-256 of the concept's definition; null for flags raised before there was one."
    )
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
    status: Literal["lead", "calibrated"] = Field(
        description="`calibrated` when the false-positive rate of the flag's rule was measured on benign"
        " requests of this decoder, and the positions that were read first suffice, as many as were judged"
        " there; `lead` otherwise: nothing is known about how often it is wrong.",
        examples=["calibrated", "lead"],
    )
    false_positive_rate: float | None = Field(
        description="Share of the calibration's benign requests that got this flag; null for a lead.",
        examples=[0.008],
    )
    false_positive_rate_upper: float | None = Field(
        description="One-sided 95% upper limit of `false_positive_rate`; null for a lead.", examples=[0.015]
    )
    calibration_requests: int | None = Field(
        description="The denominator: benign requests of the calibration; null for a lead.", examples=[944]
    )
    calibration_digest: str | None = Field(
        description="SHA-256 of the concept calibration that the rate is of; null for a lead."
    )
    calibrated: bool = Field(description="Whether `status` is `calibrated`.")
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
    return Flag.model_validate(flag_part(view))


def flag_part(view: flags.View) -> dict[str, Any]:
    """Return the values of the answer for one flag."""
    row = view.flag
    is_calibrated = row.status == FlagStatus.CALIBRATED
    return part(row, _STORED) | {
        "model": view.model,
        "status": "calibrated" if is_calibrated else "lead",
        "calibrated": is_calibrated,
        "decoder": decoder_part(view.decoder),
        "raised_at": row.created_at,
    }


_STORED: Final = stored(Flag, FlagRow)
