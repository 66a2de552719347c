"""Measured precision as answered: with its interval, its n, and what it leaves out."""

from typing import Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.explanation import DecoderReference
from service.incidents import precision
from service.store.read.precision import Counts

LABEL: Final = (
    "Of the flags that people labelled. They chose which to look at, so it is the precision of the rest "
    "only as far as their choice was blind; it says nothing of what was never flagged."
)


class PrecisionInterval(Answer):
    """A share with its interval."""

    estimate: float = Field(description="Confirmed by labelled.", examples=[0.8])
    lower: float = Field(examples=[0.44])
    upper: float = Field(examples=[0.97])
    confidence: float = Field(
        default=precision.CONFIDENCE, description="At least, by Clopper and Pearson.", examples=[0.95]
    )
    labelled: int = Field(description="The denominator: confirmed and dismissed flags.", examples=[10])


class ConceptPrecision(Answer):
    """How often the flags of one concept were right, where anybody said so."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    layer: int = Field(examples=[23])
    concept: str = Field(examples=["weapons"])
    severity: str = Field(examples=["critical"])
    decoder: DecoderReference
    concepts_digest: str = Field(description="SHA-256 of the concept definitions that they were raised by.")
    label: str = Field(default=LABEL, description="What to show beside it.")
    status: Literal["lead", "calibrated"] = Field(
        description="`calibrated` when every one of its flags carries a measured false-positive rate, else "
        "`lead`."
    )
    raised: int = Field(description="All flags; the next five add up to it.", examples=[40])
    confirmed: int = Field(examples=[8])
    dismissed: int = Field(examples=[2])
    open: int = Field(description="Nobody has decided yet.", examples=[29])
    closed_without_label: int = Field(
        description="Dismissed as test traffic or duplicate, or raised after the verdict.", examples=[1]
    )
    without_incident: int = Field(description="Raised before there were incidents.", examples=[0])
    precision: PrecisionInterval | None = Field(description="Null while nothing is labelled.")
    unlabelled: Ratio = Field(description="The share that `precision` leaves out.")


class PrecisionList(Answer):
    """Measured precision of every concept that was ever flagged."""

    items: list[ConceptPrecision]


def concept_precision(counts: Counts) -> ConceptPrecision:
    """Return the answer for one concept."""
    labelled = counts.confirmed + counts.dismissed
    measured = precision.measure(counts.confirmed, counts.dismissed)
    return ConceptPrecision(
        model=counts.model,
        layer=counts.layer,
        concept=counts.concept,
        severity=counts.severity,
        decoder=DecoderReference(
            id=counts.decoder_id, name=counts.decoder_name, digest=counts.decoder_digest
        ),
        concepts_digest=counts.concepts_digest,
        status="calibrated" if counts.calibrated == counts.raised else "lead",
        raised=counts.raised,
        confirmed=counts.confirmed,
        dismissed=counts.dismissed,
        open=counts.open,
        closed_without_label=counts.closed_without_label,
        without_incident=counts.without_incident,
        precision=None if measured is None else PrecisionInterval(**measured._asdict(), labelled=labelled),
        unlabelled=Ratio.of(counts.raised - labelled, counts.raised),
    )
