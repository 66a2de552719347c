"""The test of a request as answered: what it is, among how many, and that it says nothing of harm."""

import datetime as dt
import uuid
from typing import Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.api.schemas.explanation import DecoderReference
from service.store.read import discoveries

_SHOWN_DIGITS = 12


class TestedPosition(Answer):
    """One position that a request was tested by."""

    position: int = Field(examples=[41])
    p_value: float = Field(
        description="Of this position alone; it is no p-value of the request.", examples=[0.004]
    )


class AnomalyWindow(Answer):
    """The requests that were tested together."""

    id: uuid.UUID
    fdr: float = Field(
        description="False discovery rate: on average at most this share of the window's discoveries is"
        " false.",
        examples=[0.1],
    )
    requests: int = Field(description="The denominator: requests that were tested in it.", examples=[412])
    discoveries: int = Field(description="How many of them are discoveries.", examples=[3])
    threshold: float | None = Field(
        description="The largest p-value that was a discovery; null without one.", examples=[0.0006]
    )
    started_at: dt.datetime = Field(description="First capture of its first request, UTC.")
    ended_at: dt.datetime = Field(description="First capture of its last request, UTC.")
    closed_at: dt.datetime = Field(description="When its requests were tested, UTC.")


class RequestTest(Answer):
    """Whether one request is an anomaly among the requests of its window."""

    id: uuid.UUID
    model: str = Field(
        description="The audited model, by its served name.", examples=["SmolLM2-135M-Instruct"]
    )
    request_id: str = Field(
        description="The audited request, as its client said; others may share it.", examples=["chat-7f3a"]
    )
    capture_id: uuid.UUID
    layer: int = Field(examples=[23])
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    label: str = Field(
        description="What to show beside it.",
        examples=["Anomalous under reference 3e648d9a9ddb at a false discovery rate of 0.1 over the 412 …"],
    )
    is_discovery: bool = Field(description="Whether it is an anomaly at the window's false discovery rate.")
    p_value: float = Field(
        description="Conformal, of the whole request: its rank among benign requests with as many rows, so"
        " adjusted that it holds for this reference with 90% confidence, and not on average over"
        " references. Never below 1 - 0.1^(2 / `calibration_n`).",
        examples=[0.00095],
    )
    calibration_n: int = Field(
        description="Benign requests of the reference that it was ranked among.", examples=[4851]
    )
    q_value: float = Field(
        description="The smallest false discovery rate at which it would be a discovery of its window.",
        examples=[0.055],
    )
    rank: int = Field(
        description="Place of its p-value in the window, the smallest first; equal ones share the last.",
        examples=[3],
    )
    window: AnomalyWindow
    reference_digest: str = Field(description="SHA-256 of the anomaly reference that it was ranked by.")
    positions: list[TestedPosition] = Field(
        description="What it was tested by: at most as many positions of the random baseline as the"
        " reference knows of its requests."
    )
    decoder: DecoderReference
    incident_id: uuid.UUID | None = Field(
        description="The incident that it opened or joined; null unless it is a discovery, and while the"
        " incident could not be written yet."
    )
    first_captured_at: dt.datetime = Field(description="Its first capture, UTC.")
    last_captured_at: dt.datetime = Field(description="Its last capture before it was tested, UTC.")
    tested_at: dt.datetime = Field(description="When the test was stored, UTC; the listing's order.")


class DiscoveryPage(Answer):
    """One page of discoveries, newest tested first."""

    items: list[RequestTest]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def request_test(view: discoveries.View) -> RequestTest:
    """Return the answer for one test."""
    row, window = view.test, view.window
    rows = zip(row.positions, row.row_p_values, strict=True)
    return RequestTest(
        **{name: getattr(row, name) for name in _COPIED},
        model=view.model,
        label=_label(view),
        window=AnomalyWindow(**{name: getattr(window, name) for name in AnomalyWindow.model_fields}),
        reference_digest=window.reference_digest,
        positions=[TestedPosition(position=position, p_value=p_value) for position, p_value in rows],
        decoder=DecoderReference.of(view.decoder),
        incident_id=view.incident_id,
    )


_COPIED = (
    "id",
    "request_id",
    "capture_id",
    "layer",
    "is_discovery",
    "p_value",
    "calibration_n",
    "q_value",
    "rank",
    "first_captured_at",
    "last_captured_at",
    "tested_at",
)


def _label(view: discoveries.View) -> str:
    window = view.window
    basis = (
        f"under reference {window.reference_digest[:_SHOWN_DIGITS]} at a false discovery rate of"
        f" {window.fdr:g} over the {window.requests} requests of its window."
    )
    if view.test.is_discovery:
        meaning = "It is unlike the reference's traffic, which does not say that it is harmful."
        return f"Anomalous {basis} {meaning}"
    return f"Not found to be anomalous {basis} This does not say that it is harmless."
