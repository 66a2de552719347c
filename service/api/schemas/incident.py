"""An incident as answered: what was found, how far it can be trusted, and what people said of it."""

import datetime as dt
import re
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.api.access.disclosure import Disclosure
from service.api.parameters import Name, Person
from service.api.schemas.answer import Answer, part, stored
from service.api.schemas.discovery import RequestTest, request_test
from service.api.schemas.explanation import DecoderReference, Explanation, decoder_part, explanation
from service.api.schemas.flag import Flag, flag_part
from service.api.vocabulary import AssigneeKind, IncidentEventKind, IncidentReason, IncidentState
from service.errors import Problem
from service.store.read import flags, incidents
from service.store.tables import Incident as IncidentRow
from service.store.tables import IncidentEvent as EventRow

MAX_NOTE_LENGTH: Final = 2000
MAX_CONCEPTS: Final = 100
LABEL: Final = (
    "Hypothesis: an incident rests on explanations and anomaly scores. A lead has no known rate of false "
    "alarms; confirmed and dismissed are what people decided, not what was measured."
)
# What neither a log nor a terminal nor PostgreSQL should meet: all controls but tab and line feed.
_UNREADABLE: Final = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]"
)


def _cleaned(note: str | None) -> str | None:
    return _UNREADABLE.sub("", note).strip() or None if note is not None else None


class Transition(BaseModel):
    """A change of an incident's state."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, le=2**31 - 2)] = Field(
        description="The incident's `version` as you read it; 409 when something happened to it since.",
        examples=[3],
    )
    to: IncidentState = Field(description="The state that it shall have.", examples=["confirmed"])
    reason_code: IncidentReason = Field(
        description="Why; `GET /v1/incidents/{incident_id}` lists what each state takes in `transitions`.",
        examples=["seen_in_request"],
    )
    note: Annotated[str | None, Field(max_length=MAX_NOTE_LENGTH), AfterValidator(_cleaned)] = Field(
        default=None,
        description="Shown in the history to everybody who may read incidents. Control characters are "
        "taken out. Write no personal data into it: it cannot be changed later.",
    )
    confirmed_concepts: Annotated[list[Name], Field(max_length=MAX_CONCEPTS)] | None = Field(
        default=None,
        description="For `confirmed`: which of the incident's concepts hold; the others count as wrong. "
        "Required when it has several; empty when something else than its concepts holds.",
        examples=[["weapons"]],
    )


class Assignment(BaseModel):
    """Who shall look at an incident."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, le=2**31 - 2)] = Field(
        description="The incident's `version` as you read it; 409 when something happened to it since.",
        examples=[3],
    )
    assignee: AssigneeKind = Field(
        description="`me`; `none`, so that others take it; `key` with `key_id`, or `person` with `issuer` "
        "and `person`: somebody who may triage.",
        examples=["me"],
    )
    key_id: uuid.UUID | None = Field(default=None, description="Of `key` alone.")
    issuer: Name | None = Field(
        default=None, description="Of `person` alone.", examples=["https://login.example.com"]
    )
    person: Person | None = Field(
        default=None, description="Of `person` alone: the issuer's `sub`.", examples=["248289761001"]
    )


class IncidentConflict(Problem):
    """The problem of a change that was asked for by an old version."""

    state: IncidentState = Field(description="The state that the incident has now.")
    version: int = Field(description="The version that it has now.", examples=[4])


class Assignee(Answer):
    """Who looks at an incident: an API key, in whichever session, or a person."""

    key_id: uuid.UUID | None = Field(description="Null for a person.")
    key_name: str | None = Field(description="The key's name at that time.", examples=["night shift"])
    issuer: str | None = Field(
        description="Who says who the person is; null for a key.", examples=["https://login.example.com"]
    )
    person: str | None = Field(
        description="The issuer's `sub` of the person; null for a key.", examples=["248289761001"]
    )


class Proposal(Assignee):
    """A verdict of a first reviewer, who is named; another one has to give the same."""

    version: int = Field(description="The incident's after it.", examples=[3])
    at: dt.datetime = Field(description="UTC.")
    to: IncidentState = Field(description="What it says.", examples=["confirmed"])
    reason_code: IncidentReason = Field(description="The first reviewer's; yours may differ.")
    labels: dict[str, bool] = Field(
        description="What it says of each concept; who says otherwise makes a proposal of his own.",
        examples=[{"weapons": True}],
    )
    note: str | None


class Incident(Answer):
    """All that one decoder found on one capture at one layer, and where its triage stands."""

    id: uuid.UUID
    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    request_id: str = Field(
        description="The audited request, as its client said; others may share it.", examples=["chat-7f3a"]
    )
    capture_id: uuid.UUID | None = Field(
        description="The capture that it was found on; null when that was stored before captures had one."
    )
    layer: int = Field(examples=[23])
    decoder: DecoderReference
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    label: str = Field(default=LABEL, description="What to show beside it.")
    status: Literal["lead", "calibrated"] = Field(
        description="`calibrated` when at least one of its flags has a measured false-positive rate, else "
        "`lead`: how often such an incident is opened on benign requests is not known."
    )
    severity: str = Field(
        description="The highest of its findings: `info`, `warning` or `critical`.", examples=["critical"]
    )
    state: IncidentState
    version: int = Field(description="Counts its events; name it to change its state.", examples=[3])
    assignee: Assignee | None = Field(description="Who looks at it; null: nobody said so.")
    second_review: bool = Field(
        description="Whether a concept of its flags asks that two reviewers give the same verdict."
    )
    proposal: Proposal | None = Field(
        description="What a first reviewer said, until a second gives the same verdict; null when none "
        "did, or when something else happened since."
    )
    labels: dict[str, bool] = Field(
        description="By concept, whether triage said that it holds; empty while nobody did, and after "
        "dismissals for test traffic or duplicates.",
        examples=[{"weapons": True}],
    )
    flags: list[Flag] = Field(description="What it was opened for, by concept; empty for anomalies alone.")
    opened_at: dt.datetime = Field(description="When it was first stored, UTC; the listing's order.")
    updated_at: dt.datetime = Field(description="When it last grew or changed its state, UTC.")
    first_captured_at: dt.datetime = Field(description="Earliest capture of its findings, UTC.")
    last_captured_at: dt.datetime = Field(description="Latest capture of its findings, UTC.")


class IncidentPage(Answer):
    """One page of incidents, newest opened first."""

    items: list[Incident]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class EvidencePosition(Answer):
    """One position that belongs to the evidence, with everything known about its reading."""

    concepts: list[str] = Field(
        description="The incident's concepts that its text matched; they count only when it is verified."
    )
    is_anomalous: bool = Field(description="Whether its p-value is at or below `anomaly_p_value`.")
    explanation: Explanation


class PositionCounts(Answer):
    """How many positions of the capture were read at this layer by this decoder."""

    read: int = Field(examples=[16])
    verified: int = Field(description="With a verified explanation.", examples=[14])
    evidence: int = Field(
        description="Those that matched one of its concepts, are anomalous, or that its discovery was "
        "tested by; `evidence` lists the first 1,000.",
        examples=[3],
    )
    anomalous: int = Field(
        description="With a p-value at or below `anomaly_p_value`; not corrected for how many were tested.",
        examples=[1],
    )


class IncidentEvent(Answer):
    """One thing that happened to an incident."""

    version: int = Field(description="The incident's version after it.", examples=[2])
    kind: IncidentEventKind = Field(
        description="`opened`; `evidence`, a further finding; `reopened`, a finding on a dismissed "
        "incident; `triaged`, a change that somebody made; `assigned`, to a reviewer or to nobody; "
        "`proposed`, a verdict that a second reviewer has to give too."
    )
    at: dt.datetime = Field(description="UTC.")
    key_id: uuid.UUID | None = Field(description="The API key that did it; null for others.")
    key_name: str | None = Field(description="The key's name at that time.", examples=["night shift"])
    issuer: str | None = Field(
        description="Who says who the person is; null for a key or the system.",
        examples=["https://login.example.com"],
    )
    person: str | None = Field(
        description="Who signed in and did it, by the issuer's `sub`; null for a key or the system.",
        examples=["248289761001"],
    )
    from_state: IncidentState | None = Field(description="Null for `opened`.")
    to_state: IncidentState
    severity: str = Field(description="The incident's after it.", examples=["critical"])
    reason_code: IncidentReason | None = Field(description="Null for the system's events.")
    note: str | None
    labels: dict[str, bool] = Field(description="What it said of each concept.")
    findings: list[dict[str, Any]] = Field(
        description="New findings with their figures as they were then: `kind`, `concept`, `severity` and, "
        "of flags, positions, digest of the concepts and `false_positive_rate`, null when not calibrated; "
        "of an anomaly, p-values, window, denominator and false discovery rate."
    )
    assignee: Assignee | None = Field(description="Of `assigned`: to whom; null: to nobody.")
    proposed_state: IncidentState | None = Field(description="Of `proposed`: the verdict.")
    proposal: int | None = Field(
        description="Of `proposed` its own version; of a verdict that two gave, that of the first one's "
        "proposal.",
        examples=[2],
    )


class WebhookState(Answer):
    """Whether one webhook was told of one event."""

    version: int = Field(description="The event, by its version.", examples=[1])
    destination: str = Field(description="The webhook's name.", examples=["on-call"])
    state: Literal["pending", "delivered", "failed"]
    attempts: int = Field(description="Begun so far.", examples=[1])
    last_error: str | None = Field(description="Why the last attempt failed.")


class AllowedTransition(Answer):
    """A state that may follow."""

    to: IncidentState
    reason_codes: list[IncidentReason]


class IncidentReport(Incident):
    """One incident with all of its evidence and its history."""

    anomaly_p_value: float | None = Field(
        description="Positions with a p-value at or below it belong to the evidence; null: none does.",
        examples=[0.01],
    )
    discovery: RequestTest | None = Field(
        description="Its finding of kind `anomaly`; null when only flags opened it."
    )
    positions: PositionCounts
    evidence: list[EvidencePosition] = Field(description="In the order of their positions.")
    transitions: list[AllowedTransition] = Field(description="What may follow its state, and why.")
    events: list[IncidentEvent] = Field(description="Its history, oldest first.")
    webhooks: list[WebhookState] = Field(description="Who was told, by event and destination.")


def incident(view: incidents.View) -> Incident:
    """Return the answer for one incident."""
    return Incident.model_validate(_incident_part(view))


def _incident_part(view: incidents.View) -> dict[str, Any]:
    row = view.incident
    return part(row, _STORED) | {
        "model": view.model,
        "decoder": decoder_part(view.decoder),
        "status": "calibrated" if _is_calibrated(view) else "lead",
        "assignee": _assignee(row),
        "second_review": view.needs_second,
        "proposal": None if view.proposal is None else _proposal(view.proposal),
        "flags": [flag_part(flags.View(found, view.decoder, view.model)) for found in view.flags],
    }


_STORED: Final = stored(Incident, IncidentRow)


def report(
    detail: incidents.Detail, allowed: Sequence[AllowedTransition], disclosure: Disclosure
) -> IncidentReport:
    """Return the answer for one incident with its evidence, and of that the text that may be shown."""
    row = detail.view.incident
    concepts = {found.concept for found in detail.view.flags}
    versions = {event.id: event.version for event in detail.events}
    return IncidentReport(
        **dict(incident(detail.view)),
        anomaly_p_value=row.anomaly_p_value,
        discovery=None if detail.discovery is None else request_test(detail.discovery),
        positions=PositionCounts(**detail.positions._asdict()),
        evidence=[
            EvidencePosition(
                concepts=[match.concept for match in view.matches if match.concept in concepts],
                is_anomalous=_is_at_most(view.explanation.anomaly_p_value, row.anomaly_p_value),
                explanation=explanation(view, disclosure),
            )
            for view in detail.evidence
        ],
        transitions=list(allowed),
        events=[IncidentEvent(**event_fields(event)) for event in detail.events],
        webhooks=[
            WebhookState(
                version=versions[told.event_id],
                destination=told.destination,
                state=told.state,
                attempts=told.attempts,
                last_error=told.last_error,
            )
            for told in detail.deliveries
        ],
    )


def _assignee(row: IncidentRow | EventRow) -> Assignee | None:
    if row.assignee_key_id is None and row.assignee_person is None:
        return None
    return Assignee(**{name: getattr(row, f"assignee_{name}") for name in Assignee.model_fields})


def _proposal(event: EventRow) -> Proposal:
    same = (*Assignee.model_fields, "version", "at", "labels", "note")
    own = {name: getattr(event, name) for name in same}
    return Proposal(to=event.proposed_state, reason_code=event.reason, **own)


def _is_calibrated(view: incidents.View) -> bool:
    return any(found.false_positive_rate is not None for found in view.flags)


def _is_at_most(value: float | None, threshold: float | None) -> bool:
    return value is not None and threshold is not None and value <= threshold


def event_fields(row: EventRow) -> dict[str, Any]:
    """Return what an answer says of one event."""
    who = ("key_id", "key_name", "issuer", "person")
    same = ("version", "kind", "at", *who, "from_state", "to_state", "severity")
    return {
        **{name: getattr(row, name) for name in same},
        "reason_code": row.reason,
        "note": row.note,
        "labels": row.labels,
        "findings": row.findings,
        "assignee": _assignee(row),
        "proposed_state": row.proposed_state,
        "proposal": row.proposal,
    }
