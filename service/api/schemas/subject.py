"""A data subject as answered: everything that is stored under one subject key, with what proves it."""

import datetime as dt
import uuid
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from service.api.access.disclosure import Disclosure
from service.api.parameters import Name
from service.api.schemas.access import AccessLogEntry
from service.api.schemas.answer import Answer
from service.api.schemas.explanation import Explanation, explanation, sample_fields
from service.api.schemas.flag import Flag, flag
from service.api.schemas.request import Sample
from service.store.identity import DEFAULT_TENANT
from service.store.read import subjects
from subtext_sidecar.contract.subject import MAX_ID_BYTES

_KEY: Final = "5aedc0a1f3ff2a4e6a1e0f6c7d1f9b22"
STATEMENT: Final = (
    "This is what is stored under the subject key. Requests that were not sampled left nothing, and how "
    "many those were is not stored. Neither are requests here that came without their data subject: "
    "`/v1/coverage` counts them for any period (`requests_of_subject` of `requests_sampled`; "
    "`subject_missing`, `ignored_subject` and `subject_not_honoured` are among the rest)."
)


class SubjectLookup(BaseModel):
    """Whose subject key is asked for. It stands in a body, so that no id of a person is in a URL or log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)] = Field(
        description="The id by which the gateway names the person, exactly as it does.", examples=["u-8812"]
    )
    tenant: Name = Field(
        default=DEFAULT_TENANT,
        description="The name of the key's tenant, which is part of every subject key.",
        examples=["default"],
    )


class SubjectFound(Answer):
    """A subject key. It says nothing of whether anything is stored under it."""

    subject: str = Field(description="The subject key.", examples=[_KEY])
    url: str = Field(
        description="Where what is stored under it is read.", examples=[f"/v1/subjects/{_KEY}"]
    )


class SubjectCapture(Answer):
    """One request of the data subject's, with those of its samples that stand on this page."""

    capture_id: uuid.UUID | None = Field(description="The identity that the plugin gave it.")
    request_id: str = Field(
        description="The likeliest of the ids that its client may have sent.", examples=["chat-7f3a"]
    )
    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    samples: list[Sample] = Field(description="Of this page, newest first.")
    explanations: list[Explanation] = Field(description="Of these samples, by layer and position.")
    flags: list[Flag] = Field(description="Of the whole capture. None does not mean clean.")
    incident_ids: list[uuid.UUID] = Field(
        description="Its incidents, the oldest first: see `/v1/incidents/{incident_id}`."
    )


class SubjectEvidence(Answer):
    """Where an explanation stands in the evidence log."""

    explanation_id: uuid.UUID
    seq: int | None = Field(
        description="The place of its entry, from 0; null: it waits for one, is from before the log, or is "
        "not what the log committed to.",
        examples=[1041],
    )
    proof: str = Field(
        description="Where its inclusion proof is read, once a checkpoint covers it.",
        examples=["/v1/log/proof?explanation_id=0dc7e3b4-e191-43cc-b073-52fddcb77c21"],
    )


class SubjectReport(Answer):
    """One page of everything that is stored of a data subject."""

    subject: str = Field(description="The subject key.", examples=[_KEY])
    captures: list[SubjectCapture] = Field(
        description="By their newest sample on this page, newest first. One whose samples stand on two "
        "pages is on both, with the samples of each."
    )
    first_captured_at: dt.datetime = Field(description="The oldest sample of this page, UTC.")
    last_captured_at: dt.datetime = Field(description="The newest sample of this page, UTC.")
    evidence: list[SubjectEvidence] = Field(description="One an explanation of this page.")
    reads: list[AccessLogEntry] = Field(
        description="Who was shown text or tokens of these captures, when and why, newest first, before "
        f"this answer. At most {subjects.LISTED_READS}."
    )
    reads_truncated: bool = Field(
        description="True when there are more reads: `/v1/access-log?subject=` lists those of each capture."
    )
    statement: str = Field(default=STATEMENT, description="What this answer cannot hold.")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def subject_report(
    key: str, view: subjects.View, next_cursor: str | None, disclosure: Disclosure
) -> SubjectReport:
    """Return the answer, with texts and tokens only where the disclosure shows them."""
    shown = [one.explanation.id for capture in view.captures.items for one in capture.explanations]
    return SubjectReport(
        subject=key,
        captures=[_capture(capture, disclosure) for capture in view.captures.items],
        first_captured_at=view.first_captured_at,
        last_captured_at=view.last_captured_at,
        evidence=[
            SubjectEvidence(
                explanation_id=one,
                seq=view.places.get(one),
                proof=f"/v1/log/proof?explanation_id={one}",
            )
            for one in shown
        ],
        reads=[AccessLogEntry.model_validate(entry) for entry in view.reads],
        reads_truncated=view.has_more_reads,
        next_cursor=next_cursor,
    )


def _capture(capture: subjects.Capture, disclosure: Disclosure) -> SubjectCapture:
    return SubjectCapture(
        capture_id=capture.capture_id,
        request_id=capture.request_id,
        model=capture.model,
        samples=[
            Sample.model_validate(sample_fields(one.sample, one.model, disclosure) | {"id": one.sample.id})
            for one in capture.samples
        ],
        explanations=[explanation(one, disclosure) for one in capture.explanations],
        flags=[flag(one) for one in capture.flags],
        incident_ids=list(capture.incidents),
    )
