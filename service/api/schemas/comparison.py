"""A comparison of two windows as answered: each side's figures, differences with their tests, no cause."""

import datetime as dt
from typing import Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.schemas.coverage import Sums
from service.api.schemas.explanation import DecoderReference
from service.api.schemas.statement import Interval
from service.api.vocabulary import ConfigurationKind
from service.prevalence import change
from service.prevalence.estimate import CONFIDENCE

NO_CAUSE: Final = (
    "A difference is no cause: whatever else changed at that time, in the traffic too, may have made it."
)
_FLAGS: Final = (
    "Shares are of requests that were flagged, and flags are hypotheses; `GET /v1/prevalence` lists what a"
    " share takes for granted."
)
_READING: Final = (
    "Another decoder, or other definitions of concepts, flag otherwise and have other false-positive rates:"
    " with these a difference may be of the reading and not of the model. `configurations` tells."
)
_DEPENDENCE: Final = (
    "Requests and conversations may lie on both sides, and requests of one trace are sampled together:"
    " neither is in the intervals and tests."
)
_FIDELITY: Final = (
    "Mean fidelity and share verified are of rows that were read: losses are not made up for."
)
_ANOMALIES: Final = (
    "Anomalies count by when their window was tested. Their intervals take requests for independent."
)
LIMITS: Final = (_FLAGS, _READING, _DEPENDENCE, _FIDELITY, _ANOMALIES)


class ConfigurationSide(Answer):
    """Which versions of one kind were in force on one side."""

    known: bool = Field(
        description="Whether any process reported one within the window; not that one did all the time."
    )
    digests: list[str] = Field(
        description="Of all versions that some process ran, oldest first, if only for a moment;"
        " `GET /v1/configuration/versions/{digest}` has their contents."
    )


class ConfigurationPair(Answer):
    """Versions of one kind on both sides."""

    kind: ConfigurationKind = Field(examples=["worker"])
    before: ConfigurationSide
    after: ConfigurationSide
    changed: bool | None = Field(
        description="Whether the versions differ; null where nobody reported any on either side."
    )


class MeanEstimate(Answer):
    """A weighted mean with its interval."""

    estimate: float = Field(examples=[0.41])
    lower: float | None = Field(description="Null with a single request.", examples=[0.38])
    upper: float | None = Field(description="Null with a single request.", examples=[0.44])
    confidence: float = Field(default=CONFIDENCE, examples=[0.95])
    n: int = Field(description="Rows of the random baseline.", examples=[52_100])
    requests: int = Field(description="Their requests: what the interval follows from.", examples=[4_120])


class ShareEstimate(Answer):
    """A weighted share with its interval."""

    estimate: float = Field(examples=[0.92])
    lower: float = Field(examples=[0.90])
    upper: float = Field(examples=[0.94])
    confidence: float = Field(default=CONFIDENCE, examples=[0.95])
    n: int = Field(description="Of how many, unweighted.", examples=[4_120])
    hits: int = Field(description="Of these, how many are meant, unweighted.", examples=[3_790])
    effective_n: float = Field(
        description="Size of the simple random sample that would be as precise.", examples=[3_310.4]
    )


class ReaderFidelity(Answer):
    """How well one decoder read one layer on one side."""

    layer: int = Field(examples=[23])
    decoder: DecoderReference
    fve: MeanEstimate = Field(
        description="Mean fraction of variance explained, over rows of the random baseline weighted by the "
        "inverse of their inclusion probability. High fidelity is no truth."
    )
    verified: ShareEstimate = Field(description="Share of these rows whose reading is verified.")


class AnomalyRate(Answer):
    """How many requests came out as anomalies."""

    decoder: str = Field(description="The decoder's digest, by whose reference they were tested.")
    false_discovery_rate: float = Field(
        description="Accepted share of false ones among them, on average.", examples=[0.1]
    )
    requests: int = Field(description="Tested: the denominator.", examples=[4_096])
    anomalies: int = Field(description="Of these, anomalies.", examples=[12])
    rate: Interval | None = Field(description="Clopper-Pearson; null when none was tested.")


class ComparisonSide(Answer):
    """What was found in one of the two windows."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    is_over: bool = Field(description="False: the window still goes on, and more will be in it.")
    coverage: Sums = Field(
        description="Requests seen are the denominator of `requests_sampled`; canaries are none."
    )
    readers: list[ReaderFidelity] = Field(
        description="By layer and decoder; empty when no row of the random baseline was read."
    )
    anomalies: list[AnomalyRate] = Field(
        description="By decoder and accepted rate; empty when no request was tested."
    )


class Difference(Answer):
    """A difference of two shares, after less before."""

    estimate: float = Field(examples=[0.011])
    lower: float = Field(description="Newcombe's interval from those of both shares.", examples=[0.004])
    upper: float = Field(examples=[0.019])
    confidence: float = Field(default=CONFIDENCE, examples=[0.95])
    p_value: float = Field(
        description="Two-sided: the smallest error at which the interval leaves out 0. Below 1e-12 told "
        "as that.",
        examples=[0.002],
    )
    p_value_adjusted: float = Field(
        description="By Benjamini and Hochberg over all tests of this answer.", examples=[0.024]
    )
    is_significant: bool = Field(
        description="Whether the adjusted p-value is at most `false_discovery_rate`."
    )


class ConceptDifference(Answer):
    """How common one concept was on both sides, as read at one layer."""

    concept: str = Field(examples=["weapons"])
    hypothesis: Literal[True] = Field(default=True, description="Always true: flags rest on explanations.")
    layer: int = Field(examples=[23])
    decoder_before: DecoderReference | None = Field(description="Null when none read this layer then.")
    decoder_after: DecoderReference | None = Field(description="Null when none read this layer then.")
    before: ShareEstimate | None = Field(
        description="Share of requests flagged, as in `GET /v1/prevalence`; null when none was judged."
    )
    after: ShareEstimate | None = Field(
        description="Share of requests flagged, as in `GET /v1/prevalence`; null when none was judged."
    )
    difference: Difference | None = Field(description="Null where either side has no judged request.")


class ConfigurationComparison(Answer):
    """What was found of a model before and after a time."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    at: dt.datetime = Field(description="UTC, cut to its minute: the windows meet here.")
    as_of: dt.datetime = Field(description="When this was worked out: later minutes are not in it.")
    note: str = Field(default=NO_CAUSE, description="What no difference says.")
    before: ComparisonSide
    after: ComparisonSide
    configurations: list[ConfigurationPair] = Field(description="Every kind, also those nobody reported.")
    concepts: list[ConceptDifference] = Field(
        description="By layer, decoders and concept: every concept that was flagged on either side or that "
        "the model was ever watched for, also where nothing differs. Of several decoders at one layer, "
        "each of the one side is held against each of the other."
    )
    tests: int = Field(description="Differences that were tested together.", examples=[12])
    false_discovery_rate: float = Field(
        default=change.FALSE_DISCOVERY_RATE,
        description="Share of false ones among the significant, on average; for tests that are "
        "independent or positively dependent.",
        examples=[0.05],
    )
    limits: list[str] = Field(default=[*LIMITS], description="What else the figures do not say.")
