"""The coverage statement as answered: what was looked at by hour, and what was not."""

import datetime as dt
import uuid
from typing import Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.blind_spot import BlindSpot
from service.api.schemas.coverage import Sums
from service.api.vocabulary import CanaryStatus, GapReason, LossKind, Place
from service.incidents import precision
from service.store.canary.runs import Runs

LISTED_GAPS: Final = 200


class MinuteSums(Answer):
    """How many minutes were which; the first is the sum of the others."""

    total: int = Field(description="Minutes of the range that have passed.", examples=[60])
    with_traffic: int = Field(description="In which a plugin counted traffic.", examples=[57])
    no_traffic: int = Field(
        description="Without any, and a plugin process that counted before and after, within a day, would "
        "have told.",
        examples=[2],
    )
    nobody_reported: int = Field(
        description="Without any, and no process that would have told: no traffic, no server, or counts "
        "that were lost or are on their way. What came by in them, if anything, was not looked at.",
        examples=[1],
    )


class StepLoss(Answer):
    """How much was lost for one reason at one hop within one step."""

    hop: str = Field(examples=["plugin"])
    kind: LossKind
    reason: str = Field(examples=["queue_full"])
    count: int = Field(
        description="Rows; of `unobservable`, requests or positions as docs/counters.md says.", examples=[2]
    )


class StepStatement(Answer):
    """One hour or day of one model."""

    start: dt.datetime = Field(description="UTC.")
    minutes: MinuteSums
    requests_sampled: Ratio = Field(description="Requests chosen for sampling, of requests seen.")
    rows_decoded: Ratio = Field(description="Activations decoded and stored, of activations sampled.")
    rows_thinned: int = Field(description="Of those sampled, left out by chance with a known probability.")
    rows_duplicate: int = Field(description="Of those sampled, of a sample that was stored before.")
    rows_dropped: int = Field(
        description="Of those sampled. Less than the losses of kind `dropped` where a row was read while "
        "it was trimmed."
    )
    rows_dead_lettered: int = Field(description="Of those sampled, set aside as unusable.")
    rows_unsettled: int = Field(description="Of those sampled, without any outcome that was counted.")
    losses: list[StepLoss]


class Gap(Answer):
    """Minutes in a row without counted traffic."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    minutes: int = Field(examples=[3])
    reason: GapReason


class EquationCheck(Answer):
    """Whether what came into one place came out of it over the whole range."""

    hop: Place = Field(validation_alias="place", description="A process, or what lies between two.")
    equation: str = Field(description="What must hold once nothing is on its way.")
    rows_in: int = Field(examples=[120])
    rows_out: int = Field(examples=[120])
    in_flight: int = Field(description="In less out, in minutes that are not settled.", examples=[0])
    difference: int = Field(
        description="In, less out and in flight. Positive: lost without a count. Negative: counts lost.",
        examples=[0],
    )
    balanced: bool = Field(description="Whether `difference` is 0.")


class Interval(Answer):
    """A share with its exact interval."""

    estimate: float = Field(examples=[0.9])
    lower: float = Field(examples=[0.68])
    upper: float = Field(examples=[0.99])
    confidence: float = Field(default=precision.CONFIDENCE, examples=[0.95])
    n: int = Field(description="The denominator.", examples=[20])


class CanaryRecall(Answer):
    """What became of the control prompts of one concept."""

    concept: str = Field(examples=["weapons"])
    read: int = Field(description="Positive ones that were read.", examples=[20])
    flagged: int = Field(description="Of these, flagged with the concept.", examples=[18])
    lost: int = Field(
        description="Positive ones that were never read: no part of the recall.", examples=[1]
    )
    recall: Interval | None = Field(
        description="Flagged by read, Clopper-Pearson; null when none was read. Of the runner's own "
        "prompts, which it repeats: it says nothing of how others would fare."
    )
    negative_read: int = Field(description="Negative ones that were read.", examples=[10])
    negative_lost: int = Field(
        description="Negative ones that were never read: no part of the false alarms.", examples=[0]
    )
    negative_flagged: int = Field(description="Of these, flagged: false alarms.", examples=[0])
    false_alarms: Interval | None = Field(description="Flagged by read; null when none was read.")


class Canaries(Answer):
    """Whether control prompts ran, and whether the audit told of them."""

    status: CanaryStatus = Field(
        description="`ran`; `none_ran`: recall is not known; `results_not_kept`: the plugin saw some, and "
        "their runner kept no result."
    )
    requests_seen: int = Field(description="Canaries that plugins counted.", examples=[21])
    concepts: list[CanaryRecall]


class Absence(Answer):
    """Something that belongs into a statement and that this version cannot tell: it is not zero."""

    what: str = Field(examples=["legal_holds"])
    available: Literal[False] = False
    detail: str


class OpenErasures(Answer):
    """How many requests for erasure there are, as of now and of all models."""

    total: int = Field(description="All that were ever made.", examples=[12])
    open: int = Field(description="Of them not done.", examples=[1])
    overdue: int = Field(description="Of the open ones past their 30 days.", examples=[0])
    held: int = Field(description="Of the open ones kept open by a legal hold.", examples=[0])
    oldest_at: dt.datetime | None = Field(description="When the oldest open one was made; null for none.")


class ModelStatement(Answer):
    """The statement of one model."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    totals: Sums = Field(description="Over the range, all strata of traffic together; canaries are none.")
    minutes: MinuteSums
    steps: list[StepStatement] = Field(description="Every hour or day of the range, oldest first.")
    gaps_total: int = Field(description="Gaps in the range; the longest 200 are listed.", examples=[2])
    gaps: list[Gap] = Field(description="Oldest first.")
    settled_before: dt.datetime | None = Field(
        description="What was captured before should have arrived; null when no worker has read any row."
    )
    balanced: bool | None = Field(
        description="Whether every equation holds; null when nothing was counted that could be checked."
    )
    equations: list[EquationCheck]
    canaries: Canaries


class Removal(Answer):
    """What one retention run removed."""

    run: uuid.UUID = Field(description="Its deletion certificate and its tombstones name it.")
    model: str = Field(description="Served model name.")
    explanations: int = Field(description="Removed, within the range or not.", examples=[1200])
    first_captured_at: dt.datetime = Field(description="Of what was removed, UTC.")
    last_captured_at: dt.datetime = Field(description="Of what was removed, UTC.")
    is_finished: bool


class CoverageStatement(Answer):
    """What was looked at in a range of time, and what was not."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC, on a step's edge.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC, on a step's edge.")
    as_of: dt.datetime = Field(description="When this was worked out: later minutes are not in it.")
    resolution: Literal["hour", "day"] = Field(
        description="Length of one step: hours up to 31 days, days for a longer range."
    )
    models: list[ModelStatement]
    blind_spots: list[BlindSpot] = Field(description="Over the range and all of these models.")
    erasures: OpenErasures
    legal_holds: list[uuid.UUID] = Field(
        description="Holds in force now whose model and period reach into the range; see `/v1/legal-holds`."
    )
    removals: list[Removal] = Field(
        description="Retention runs that removed explanations of the range: these were there, and are not "
        "traffic that was never read. Counts are kept: those of this statement tell of them too."
    )
    not_available: list[Absence]


NOT_AVAILABLE: Final = ()


def interval(hits: int, others: int) -> Interval | None:
    """Return the share of hits with its interval; None of nothing."""
    measured = precision.measure(hits, others)
    return None if measured is None else Interval(**measured._asdict(), n=hits + others)


def canary_recalls(runs: list[Runs]) -> list[CanaryRecall]:
    """Return the results of one model's runs by concept."""
    positive = {one.concept: one for one in runs if one.kind == "positive"}
    negative = {one.concept: one for one in runs if one.kind == "negative"}
    return [
        _recall(concept, positive.get(concept, _none(concept)), negative.get(concept, _none(concept)))
        for concept in sorted({*positive, *negative})
    ]


def _none(concept: str) -> Runs:
    return Runs("", concept, "", 0, 0, 0)


def _recall(concept: str, positive: Runs, negative: Runs) -> CanaryRecall:
    return CanaryRecall(
        concept=concept,
        read=positive.flagged + positive.not_flagged,
        flagged=positive.flagged,
        lost=positive.lost,
        recall=interval(positive.flagged, positive.not_flagged),
        negative_read=negative.flagged + negative.not_flagged,
        negative_flagged=negative.flagged,
        negative_lost=negative.lost,
        false_alarms=interval(negative.flagged, negative.not_flagged),
    )
