"""The sampled positions of a capture as answered: enough to draw each, and the ids to read more of one."""

import datetime as dt
import uuid
from typing import Literal

from pydantic import Field

from service.api.access.disclosure import HOW_TO_READ, Disclosure
from service.api.schemas.answer import Answer
from service.api.schemas.explanation import WithheldText
from service.store.read import positions


class PositionReading(Answer):
    """The figures of one explanation: what it says is at `/v1/explanations/{explanation_id}`."""

    explanation_id: uuid.UUID
    decoder_id: uuid.UUID
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    verified: bool = Field(description="As at the explanation; it never means that the text is true.")
    cosine: float = Field(examples=[0.87])
    fve: float = Field(examples=[0.41])
    fve_beyond_token: float | None = Field(
        description="Null when the decoder knows no token means.", examples=[0.31]
    )
    verified_above: float = Field(
        description="The threshold of its position class: for `fve_beyond_token`, or for `fve` where that"
        " is null.",
        examples=[0.08],
    )
    anomaly_score: float | None = Field(
        description="1 is the benign 99th percentile; null when it was not scored.", examples=[1.21]
    )
    anomaly_p_value: float | None = Field(
        description="Conformal, of this activation alone, not corrected for how many were tested.",
        examples=[0.00635],
    )
    concepts: list[str] = Field(
        description="Concepts that the text matched. A match alone is no flag.", examples=[["weapons"]]
    )


class CapturePosition(Answer):
    """One sampled position."""

    position: int = Field(description="0 is the first prompt token.", examples=[41])
    token_text: str | None = Field(description="Null where it is withheld, see `withheld`.")
    phase: str = Field(
        description="`prefill` for prompt tokens, `decode` for generated ones.", examples=["decode"]
    )
    reason: str = Field(description="Why it was chosen, as at a sample.", examples=["decode"])
    inclusion_probability: float = Field(
        description="The probability with which it was chosen, for whatever reason.", examples=[0.25]
    )
    captured_at: dt.datetime = Field(description="UTC.")
    readings: list[PositionReading] = Field(
        description="One of each decoder that read it, oldest first; empty when none did."
    )


class LayerPositions(Answer):
    """How many positions were sampled at a layer."""

    layer: int = Field(examples=[23])
    positions: int = Field(examples=[812])


class PositionPage(Answer):
    """One page of the sampled positions of one capture at one layer, by position."""

    capture_id: uuid.UUID = Field(description="Of all positions on the page.")
    layer: int = Field(description="Of these positions.", examples=[23])
    layers: list[LayerPositions] = Field(description="All layers at which the capture was sampled.")
    items: list[CapturePosition] = Field(
        description="Positions that are missing between these were not sampled: nothing is known of them."
    )
    next_after: int | None = Field(
        description="Pass it as `after` for the next page; null on the last.", examples=[999]
    )
    withheld: WithheldText | None = Field(
        description="Why tokens are null, and how to read them; null where they are shown."
    )


def position_page(capture_id: uuid.UUID, view: positions.View, disclosure: Disclosure) -> PositionPage:
    """Return the answer for one page, with tokens only where the disclosure shows them."""
    code = disclosure.withholding
    return PositionPage(
        capture_id=capture_id,
        layer=view.layer,
        layers=[LayerPositions.model_validate(one) for one in view.layers],
        items=[_position(found, disclosure) for found in view.items],
        next_after=view.next_after,
        withheld=None if code is None else WithheldText(code=code, detail=HOW_TO_READ[code]),
    )


def _position(found: positions.SampledPosition, disclosure: Disclosure) -> CapturePosition:
    sample = found.sample
    return CapturePosition(
        position=sample.position,
        token_text=sample.token_text if disclosure.shows_token(sample) else None,
        phase=sample.phase,
        reason=sample.reason,
        inclusion_probability=sample.inclusion_probability,
        captured_at=sample.captured_at,
        readings=[_reading(one) for one in found.readings],
    )


def _reading(one: positions.Reading) -> PositionReading:
    thresholds = one.verified_above or {}
    threshold = max(float(thresholds.get(one.position_class, one.shuffled_fve_p95)), 0.0)
    return PositionReading(
        explanation_id=one.id,
        decoder_id=one.decoder_id,
        verified=one.verified,
        cosine=one.cosine,
        fve=one.fve,
        fve_beyond_token=one.fve_beyond_token,
        verified_above=threshold,
        anomaly_score=one.anomaly_score,
        anomaly_p_value=one.anomaly_p_value,
        concepts=list(one.concepts),
    )
