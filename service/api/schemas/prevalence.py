"""Prevalence as answered: never without its interval, its denominators and what it takes for granted."""

import datetime as dt
from typing import Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.schemas.explanation import DecoderReference
from service.prevalence.assumptions import Assumption as Assumed
from service.prevalence.statement import ConceptPrevalence
from service.store.tables import Decoder


class Assumption(Answer):
    """Something that these figures take for granted."""

    code: str = Field(description="Stable name.", examples=["losses_at_random"])
    detail: str = Field(description="The same in plain words.")
    count: int | None = Field(
        description="How many requests or flags it does not hold for; null where nobody can count it.",
        examples=[12],
    )


class PrevalenceEstimate(Answer):
    """The share of requests with the concept, as one decoder reads them at one layer."""

    layer: int = Field(examples=[23])
    decoder: DecoderReference
    hypothesis: Literal[True] = Field(default=True, description="Always true: flags rest on explanations.")
    estimate: float | None = Field(
        description="Share of requests that would be flagged, read as the sampled ones are; null without "
        "any judged request.",
        examples=[0.012],
    )
    lower: float = Field(description="Lower end of the interval at one look.", examples=[0.008])
    upper: float = Field(description="Upper end of the interval at one look.", examples=[0.018])
    lower_anytime: float = Field(
        description="One-sided lower bound that holds at all looks together from one start of the range.",
        examples=[0.006],
    )
    rows: int = Field(description="Judged rows of the random baseline.", examples=[52_100])
    requests: int = Field(description="Their requests: the unit of the estimate.", examples=[4_120])
    requests_flagged: int = Field(description="Of these, flagged with the concept.", examples=[51])
    requests_verified: int = Field(
        description="Of these, with at least one verified reading: no other could be flagged.",
        examples=[4_060],
    )
    effective_requests: float = Field(
        description="Size of the simple random sample that would be as precise.", examples=[3_310.4]
    )
    retained: float | None = Field(
        description="Mean share of the sampled rows of their minutes that were not lost; null without "
        "any judged request.",
        examples=[0.998],
    )


class PrevalenceReport(Answer):
    """How common one concept is in the requests to one model."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    concept: str = Field(examples=["weapons"])
    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    confidence: float = Field(description="Of the interval, and of `lower_anytime`.", examples=[0.95])
    calibrated: bool = Field(
        description="Whether every flag that counts has a known false-positive rate; false without flags."
    )
    estimates: list[PrevalenceEstimate] = Field(
        description="By layer and decoder; empty when no decoder read anything in the range."
    )
    assumptions: list[Assumption] = Field(
        description="What does not hold in this range, counted, and then what is always assumed."
    )


class PrevalenceList(Answer):
    """How common each concept is in the requests to each model."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    items: list[PrevalenceReport] = Field(
        description="By model and concept; empty when none was flagged and no canary ran."
    )


def estimate(found: ConceptPrevalence, decoder: Decoder) -> PrevalenceEstimate:
    """Return the answer for one reader."""
    return PrevalenceEstimate(
        layer=found.reader.layer,
        decoder=DecoderReference.of(decoder),
        estimate=found.estimate,
        lower=found.lower,
        upper=found.upper,
        lower_anytime=found.lower_anytime,
        rows=found.rows,
        requests=found.requests,
        requests_flagged=found.requests_flagged,
        requests_verified=found.requests_verified,
        effective_requests=found.effective_requests,
        retained=found.retained,
    )


def assumption(found: Assumed) -> Assumption:
    """Return the answer for one assumption."""
    return Assumption(code=found.code, detail=found.detail, count=found.count)
