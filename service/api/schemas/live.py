"""What happens now as answered: ids, places and counts, and no text of any reading."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from service.api.schemas.answer import Answer, Ratio
from service.api.schemas.coverage import Sums
from service.api.schemas.explanation import Fidelity, explanation_fidelity
from service.api.vocabulary import IncidentState
from service.coverage.losses import ModelSums
from service.store.read import explanations, live


class LiveMinute(Answer):
    """What was counted of one model within one minute."""

    start: dt.datetime = Field(description="UTC.")
    sums: Sums


class LiveModel(Answer):
    """The last minutes of one model."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    totals: Sums = Field(description="Of all of these minutes.")
    minutes: list[LiveMinute] = Field(description="Those in which anything was counted, oldest first.")
    settled_before: dt.datetime | None = Field(
        description="Rows of later minutes may be on their way; null when no worker has read any row."
    )


class LiveCoverage(Answer):
    """Counts of the last 15 minutes, with the one that is under way."""

    start: dt.datetime = Field(serialization_alias="from", description="Inclusive, UTC.")
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    models: list[LiveModel] = Field(description="Those of which anything was counted.")


class LiveReading(Answer):
    """One reading by its place; `GET /v1/explanations/{explanation_id}` tells what it says."""

    id: uuid.UUID
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    request_id: str = Field(description="As its client said; others may share it.", examples=["chat-7f3a"])
    capture_id: uuid.UUID | None
    layer: int = Field(examples=[23])
    position: int = Field(examples=[41])
    captured_at: dt.datetime = Field(description="UTC.")
    hypothesis: Literal[True] = Field(default=True, description="Always true.")
    fidelity: Fidelity


class LiveReadings(Answer):
    """The readings of the newest captures."""

    since: dt.datetime = Field(description="Earlier captures are not listed: 24 hours before.")
    newest: list[LiveReading] = Field(description="At most 25, newest capture first.")


class LiveIncident(Answer):
    """One incident by its place; `GET /v1/incidents/{incident_id}` tells what was found."""

    id: uuid.UUID
    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    request_id: str = Field(description="As its client said; others may share it.", examples=["chat-7f3a"])
    capture_id: uuid.UUID | None
    layer: int = Field(examples=[23])
    state: IncidentState
    version: int = Field(description="Grows with whatever happens to it.", examples=[2])
    opened_at: dt.datetime = Field(description="UTC.")
    updated_at: dt.datetime = Field(description="When something happened to it last, UTC.")


class LiveUndecided(Answer):
    """How many incidents of one model and state nobody has decided on."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    state: IncidentState
    incidents: int = Field(examples=[3])
    versions: int = Field(
        description="Sum of their versions: another one says that something happened.", examples=[4]
    )


class LiveTested(Answer):
    """How many requests of one model were tested for being anomalies, and how many are."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    windows: int = Field(description="That were closed in the last 24 hours.", examples=[12])
    discovered: Ratio = Field(
        description="Discoveries, of requests that were tested in these windows. A part of them is"
        " false, on average at most the windows' false discovery rate."
    )


class LiveIncidents(Answer):
    """The incidents that nobody has decided on."""

    undecided: list[LiveUndecided] = Field(description="By model and state; empty when there is none.")
    changed: list[LiveIncident] = Field(description="At most 25 of them, last changed first.")
    tested: list[LiveTested] = Field(description="By model; empty when no window was closed.")


class Live(Answer):
    """What happens now. A part for which the key or session has no scope is null."""

    as_of: dt.datetime = Field(description="When it was looked up, UTC.")
    coverage: LiveCoverage | None = Field(description="With `coverage:read`.")
    readings: LiveReadings | None = Field(description="With `explanations:read`.")
    incidents: LiveIncidents | None = Field(description="With `flags:read`.")


def coverage(
    start: dt.datetime,
    end: dt.datetime,
    settled_before: Mapping[str, dt.datetime],
    totals: Sequence[ModelSums],
    by_minute: Mapping[dt.datetime, Sequence[ModelSums]],
) -> LiveCoverage:
    """Return the answer for these sums."""
    return LiveCoverage(
        start=start,
        end=end,
        models=[
            LiveModel(
                model=one.model,
                totals=Sums.model_validate(one),
                minutes=[
                    LiveMinute(start=minute, sums=Sums.model_validate(of_minute))
                    for minute, sums in by_minute.items()
                    for of_minute in sums
                    if of_minute.model == one.model
                ],
                settled_before=settled_before.get(one.model),
            )
            for one in totals
        ],
    )


def readings(since: dt.datetime, views: Sequence[explanations.View]) -> LiveReadings:
    """Return the answer for these readings, without their texts and tokens."""
    return LiveReadings(since=since, newest=[_reading(view) for view in views])


def _reading(view: explanations.View) -> LiveReading:
    row, sample = view.explanation, view.sample
    return LiveReading(
        id=row.id,
        model=view.model,
        request_id=sample.request_id,
        capture_id=sample.capture_id,
        layer=sample.layer,
        position=sample.position,
        captured_at=row.captured_at,
        fidelity=explanation_fidelity(view),
    )


def incidents(
    undecided: Sequence[live.Undecided], changed: Sequence[live.Changed], tested: Sequence[live.Tested]
) -> LiveIncidents:
    """Return the answer for these incidents and tests."""
    return LiveIncidents(
        undecided=[LiveUndecided.model_validate(one) for one in undecided],
        changed=[LiveIncident.model_validate(one) for one in changed],
        tested=[
            LiveTested(
                model=one.model,
                windows=one.windows,
                discovered=Ratio.of(one.discoveries, one.requests),
            )
            for one in tested
        ],
    )
