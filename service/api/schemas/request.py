"""One audited request as answered: what is known of it, and how little of it was looked at."""

import datetime as dt
import uuid
from typing import Final, Literal, NamedTuple

from pydantic import Field

from service import readings
from service.api.access.disclosure import Disclosure
from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.blind_spot import BlindSpot
from service.api.schemas.discovery import RequestTest, request_test
from service.api.schemas.explanation import ROLE, Explanation, SampleFields, explanation, sample_fields
from service.api.schemas.flag import Flag, flag
from service.coverage import blind_spots
from service.store.read import requests, traces


class Sample(SampleFields):
    """An activation that was chosen, with the probability that it was."""

    id: uuid.UUID


class ReasonCount(Answer):
    """Positions chosen for one reason."""

    reason: str = Field(examples=["decode"])
    positions: int = Field(examples=[6])
    probability_min: float = Field(
        description="Smallest inclusion probability among them.", examples=[0.25]
    )
    probability_max: float = Field(description="Largest inclusion probability among them.", examples=[0.25])


class RequestCoverage(Answer):
    """What part of the request was looked at."""

    positions_sampled: int = Field(description="Positions stored of it, over all layers.")
    positions_listed: int = Field(
        description="How many of them `samples` holds, unless rows were left out; the figures below are of "
        "these."
    )
    truncated: bool = Field(
        description="True when there are more than are listed; page through /v1/explanations."
    )
    positions_explained: Ratio = Field(description="Positions with an explanation, of those listed.")
    positions_verified: Ratio = Field(
        description="Positions with a verified explanation, of those explained."
    )
    reasons: list[ReasonCount]
    statement: str = Field(description="The same in one sentence, for a report.")
    blind_spots: list[BlindSpot]


class PooledKind(Answer):
    """How strongly the readings touch on one kind."""

    kind: str = Field(examples=["medical advice"])
    mean_score: float = Field(
        description="Mean probability over the readings; one that gives none counts 0.", examples=[0.12]
    )
    max_score: float = Field(description="Its largest probability in any reading.", examples=[0.64])
    readings: int = Field(description="How many readings name it.", examples=[1])


SUMMARY_LABEL: Final = (
    "Hypothesis: pooled over all readings of this capture, verified or not. It names a likely theme and "
    "never says that the request is about it."
)


class RequestSummary(Answer):
    """What the readings say together, verified or not: a hypothesis of the request's theme."""

    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    label: str = Field(default=SUMMARY_LABEL, description="What to show beside it.")
    text: str = Field(
        examples=["about medicine (7 of 9 readings)", "no clear theme in 9 readings"],
    )
    area: str | None = Field(
        description="The area with the highest mean probability; null where that is below "
        f"{readings.NAMED_FROM}, or no reading has it as its likeliest.",
        examples=["medicine"],
    )
    area_probability: float | None = Field(
        description="Its mean probability over the readings; one that gives none counts 0.", examples=[0.62]
    )
    readings_naming_it: int = Field(
        description="How many readings have the area as their likeliest.", examples=[7]
    )
    readings: int = Field(description="How many readings carry claims.", examples=[9])
    kinds: list[PooledKind] = Field(description="By mean score, highest first.")


class Capture(Answer):
    """One request that was sampled. Nothing of it is mixed with another, whatever id both came under."""

    capture_id: uuid.UUID | None = Field(
        description="The identity that the plugin gave it; null for all that was stored under the id "
        "before captures had one."
    )
    request_id: str = Field(
        description="The likeliest of the ids that its client may have sent, cut and cleaned: another than "
        "was asked for where vLLM adds to ids.",
        examples=["chat-7f3a"],
    )
    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    role: str | None = Field(description=ROLE, examples=["decode"])
    first_captured_at: dt.datetime = Field(description="Its first sample, UTC.")
    summary: RequestSummary | None = Field(
        description="What the listed readings say together; null where text is withheld or no summary was "
        "asked for, and when no reading carries claims."
    )
    coverage: RequestCoverage
    samples: list[Sample] = Field(description="By layer and position.")
    explanations: list[Explanation] = Field(description="Of the listed samples, by layer and position.")
    flags: list[Flag] = Field(description="By concept. None does not mean clean: see `coverage`.")
    anomaly_tests: list[RequestTest] = Field(
        description="Whether it is an anomaly, by layer; empty while it is not tested. It is tested once, "
        "when it is complete, and only by positions of the random baseline."
    )


class RequestReport(Answer):
    """One page of what is known under a request id. Clients choose ids: it may be of several requests."""

    request_id: str = Field(description="As it was asked for.", examples=["chat-7f3a"])
    captures_total: int = Field(
        description="How many requests were sampled under the id, on all pages; "
        f"{requests.COUNTED_CAPTURES} stands for that many or more.",
        examples=[1],
    )
    captures: list[Capture] = Field(description="Newest first.")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class TracedRequest(Answer):
    """A request of a trace, with a stored sample."""

    request_id: str = Field(examples=["chat-7f3a"])
    capture_id: uuid.UUID | None = Field(
        description="The identity that the plugin gave it; null when stored before captures had one."
    )
    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    span_ids: list[str] = Field(
        description="Spans of the callers; several only where `capture_id` is null and the id came again.",
        examples=[["b7ad6b7169203331"]],
    )
    role: str | None = Field(description=ROLE, examples=["decode"])
    samples: int = Field(description="Positions stored of it in this trace.", examples=[6])
    first_captured_at: dt.datetime = Field(description="UTC.")
    last_captured_at: dt.datetime = Field(description="UTC.")


class TracedRequests(Answer):
    """The requests of one trace, in the order of their first capture."""

    requests: list[TracedRequest]
    requests_total: int = Field(
        description="How many there are; more than are listed when cut.", examples=[1]
    )
    truncated: bool = Field(
        description="True when the trace has more samples than are read: the figures are then of the first."
    )


class TraceReport(Answer):
    """One page of what is known of a trace. Clients choose trace ids: this is what they said."""

    trace_id: str = Field(examples=["0af7651916cd43dd8448eb211c80319c"])
    captures_total: int = Field(
        description="How many of its requests were sampled, on all pages.", examples=[1]
    )
    truncated: bool = Field(
        description="True when the trace has more samples than are read; later requests are left out."
    )
    captures: list[Capture] = Field(description="Newest first.")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class Parts(NamedTuple):
    """What of each capture an answer holds beside its figures."""

    rows: bool = True
    summary: bool = True


_ALL: Final = Parts()


def report(
    view: requests.View, next_cursor: str | None, disclosure: Disclosure, parts: Parts = _ALL
) -> RequestReport:
    """Return the answer for one request id, with texts and tokens only where the disclosure shows them."""
    return RequestReport(
        request_id=view.request_id,
        captures_total=view.captures_total,
        captures=[_capture(capture, disclosure, parts) for capture in view.captures.items],
        next_cursor=next_cursor,
    )


def trace_report(
    trace_id: str, view: traces.View, next_cursor: str | None, disclosure: Disclosure
) -> TraceReport:
    """Return the answer for one trace, with texts and tokens only where the disclosure shows them."""
    return TraceReport(
        trace_id=trace_id,
        captures_total=view.captures_total,
        truncated=view.truncated,
        captures=[_capture(capture, disclosure) for capture in view.captures.items],
        next_cursor=next_cursor,
    )


def _capture(view: requests.CaptureView, disclosure: Disclosure, parts: Parts = _ALL) -> Capture:
    samples = view.samples if parts.rows else []
    explanations = view.explanations if parts.rows else []
    has_summary = parts.summary and disclosure.withholding is None
    return Capture(
        capture_id=view.capture.capture_id,
        request_id=view.capture.request_id,
        model=view.capture.model,
        role=view.capture.role,
        first_captured_at=view.capture.first_captured_at,
        summary=_summary(view) if has_summary else None,
        coverage=_coverage(view),
        samples=[
            Sample.model_validate(
                sample_fields(sample.sample, sample.model, disclosure) | {"id": sample.sample.id}
            )
            for sample in samples
        ],
        explanations=[explanation(found, disclosure) for found in explanations],
        flags=[flag(found) for found in view.flags],
        anomaly_tests=[request_test(found) for found in view.tests],
    )


def _summary(view: requests.CaptureView) -> RequestSummary | None:
    claims = [found.explanation.claims for found in view.explanations]
    pooled = readings.summarize([said for said in claims if said is not None])
    if pooled is None:
        return None
    kinds = [PooledKind(**kind._asdict()) for kind in pooled.kinds]
    return RequestSummary(**pooled._asdict() | {"kinds": kinds})


def _coverage(view: requests.CaptureView) -> RequestCoverage:
    total, figures = view.capture.samples_total, view.figures
    explained = Ratio.of(figures.explained, figures.listed)
    verified = Ratio.of(figures.verified, figures.explained)
    return RequestCoverage(
        positions_sampled=total,
        positions_listed=figures.listed,
        truncated=figures.listed < total,
        positions_explained=explained,
        positions_verified=verified,
        reasons=[ReasonCount(**reason._asdict()) for reason in figures.reasons],
        statement=(
            f"{total} positions of this request were sampled and stored; of the {figures.listed} "
            f"listed, {figures.explained} have an explanation and {figures.verified} a verified one. "
            "No other position was looked at, and how many there were is not stored."
        ),
        blind_spots=blind_spots.ALWAYS,
    )
