"""Events, decisions and clocks of incidents, and detectors, as answered."""

import datetime as dt
import uuid
from typing import Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.incident import LABEL, IncidentEvent
from service.api.schemas.precision import ConceptPrecision
from service.api.schemas.statement import CanaryRecall
from service.api.vocabulary import IncidentReason, IncidentState, ReportClock

CLOCKS_LABEL: Final = (
    "Article 73 of Regulation (EU) 2024/1689 counts from when the provider becomes aware, and wants the "
    "report without delay. Whether an incident is a serious one, of which class, and whether it was "
    "reported is not recorded here: every term is told, from the confirmation and from the opening."
)


class HistoryEvent(IncidentEvent):
    """One thing that happened to one incident."""

    incident_id: uuid.UUID
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    label: str = Field(default=LABEL, description="What to show beside it.")


class HistoryPage(Answer):
    """One page of events, newest first."""

    items: list[HistoryEvent]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class Times(Answer):
    """How long something took, of those incidents that it happened to."""

    incidents: int = Field(description="The denominator.", examples=[40])
    median_seconds: float | None = Field(description="Null without any.", examples=[840.0])
    p90_seconds: float | None = Field(description="Nine in ten took at most this long.", examples=[5400.0])
    longest_seconds: float | None = Field(examples=[90_000.0])


class Decisions(Answer):
    """Decisions for one reason."""

    to: IncidentState = Field(examples=["confirmed"])
    reason_code: IncidentReason = Field(examples=["seen_in_request"])
    decisions: int = Field(examples=[12])
    overridden: Ratio = Field(
        description="Those that a later decision on the same incident contradicts, in its state or a label."
    )


class TriageSummary(Answer):
    """How incidents of a period were reviewed."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    opened: int = Field(description="Incidents that were opened in the period.", examples=[42])
    to_first_review: Times = Field(description="From the opening to the first thing anybody did.")
    not_reviewed: Ratio = Field(description="Of those opened, nobody did anything yet: in no time above.")
    to_decision: Times = Field(description="From the opening to the first confirmation or dismissal.")
    not_decided: Ratio = Field(description="Of those opened, nobody decided yet: in no time above.")
    decisions: list[Decisions] = Field(
        description="Decisions that were made in the period, whenever their incident was opened."
    )
    overridden: Ratio = Field(description="Of all these decisions.")


class ReportDue(Answer):
    """By when a report is due if the incident is serious and of this class."""

    clock: ReportClock = Field(
        description="`widespread`, or of critical infrastructure: 2 days; `death`: 10; `other`: 15."
    )
    days: int = Field(examples=[15])
    from_confirmation: dt.datetime | None = Field(description="Null while it is not confirmed.")
    is_overdue: bool | None = Field(description="Whether that has passed; null while not confirmed.")
    from_opening: dt.datetime = Field(description="If the provider was aware when it was opened.")


class ClockedIncident(Answer):
    """One incident that is not dismissed, with its terms."""

    incident_id: uuid.UUID
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    request_id: str = Field(examples=["chat-7f3a"])
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    label: str = Field(default=LABEL, description="What to show beside it.")
    status: Literal["lead", "calibrated"] = Field(
        description="`calibrated` when at least one of its flags has a measured false-positive rate."
    )
    severity: str = Field(examples=["critical"])
    state: IncidentState
    labels: dict[str, bool] = Field(examples=[{"weapons": True}])
    opened_at: dt.datetime
    confirmed_at: dt.datetime | None
    due: list[ReportDue] = Field(description="The shortest term first.")


class ClockedPage(Answer):
    """One page, newest opened first."""

    as_of: dt.datetime
    label: str = Field(default=CLOCKS_LABEL, description="What to show beside it.")
    items: list[ClockedIncident]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class RuleRate(Answer):
    """How often the rule flags benign requests, as its calibration measured."""

    estimate: float = Field(examples=[0.008])
    upper: float = Field(description="Upper limit, one-sided, of 95% confidence.", examples=[0.012])
    requests: int = Field(description="The denominator: benign requests.", examples=[1200])
    calibration_digest: str


class Detector(ConceptPrecision):
    """How one concept performs, as one decoder and one set of definitions detect it."""

    false_positive_rate: RuleRate | None = Field(
        description="Of its newest calibrated flag; null when no flag of it was calibrated: leads."
    )
    canaries: CanaryRecall | None = Field(
        description="Of the model's canaries for the concept in the range; null when none ran."
    )


class UnflaggedCanaries(Answer):
    """Canaries of a concept that no flag in the range has."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    canaries: CanaryRecall


class DetectorList(Answer):
    """Every detector that raised a flag in the range, and canaries of the others."""

    items: list[Detector]
    without_flags: list[UnflaggedCanaries]
