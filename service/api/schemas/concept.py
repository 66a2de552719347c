"""Concepts as answered: versions, how well each is calibrated, and how often it flagged."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from service.api.schemas.answer import Answer
from service.incidents import precision
from service.store.read.concepts import Rate, Used

LABEL: Final = (
    "A flag is a hypothesis. The false-positive rate is of the benign requests of the calibration, and the "
    "share that was flagged is of requests that were read: neither is the rate on all traffic."
)
_NOT_MEASURED: Final = (
    "no calibration of this definition was ever reported: its flags are leads; see `subtext calibrate`"
)


class ConceptRate(Answer):
    """How often the rule flags benign requests."""

    estimate: float = Field(examples=[0.008])
    upper: float = Field(description="Upper limit, one-sided, of 95% confidence.", examples=[0.012])
    requests: int = Field(description="The denominator: benign requests.", examples=[1200])
    calibration_digest: str | None = Field(description="Null where a report did not name it.")
    is_held_out: bool | None = Field(
        description="Measured on requests that the rule was not chosen on; null where only a flag tells."
    )


class FlaggedShare(Answer):
    """How many of the requests that were read were flagged."""

    flagged: int = Field(examples=[3])
    read: int = Field(
        description="The denominator: requests of the range of which something was read, also those from "
        "before this version was used.",
        examples=[412],
    )
    estimate: float | None = Field(description="Null where nothing was read.", examples=[0.0073])
    lower: float | None = Field(examples=[0.0015])
    upper: float | None = Field(examples=[0.0212])
    confidence: float = Field(
        default=precision.CONFIDENCE, description="At least, by Clopper and Pearson.", examples=[0.95]
    )


class ListedConceptVersion(Answer):
    """What a concept's name stood for. A definition that was used never changes."""

    version: int | None = Field(description="Null: of a file whose definitions have none.", examples=[2])
    digest: str = Field(description="SHA-256 of the definition.")
    used_since: dt.datetime = Field(description="When a worker of the model brought it first, UTC.")
    is_in_force: bool | None = Field(
        description="Whether a worker of the model watches for it now; null: no worker reported."
    )
    severity: str | None = Field(examples=["critical"])
    positions_required: int | None = Field(
        description="Verified positions that must match; by the calibration where there is one.",
        examples=[2],
    )
    positions_judged: int | None = Field(
        description="Positions of a request that the rate is of; null without a calibration.", examples=[24]
    )
    threshold: float | None = Field(description="Of the matchers that have a score, as calibrated.")
    target_false_positive_rate: float | None = Field(
        description="What is asked for; null: the calibration's default.", examples=[0.01]
    )
    status: Literal["calibrated", "lead"] = Field(
        description="`calibrated`: a measured false-positive rate met what is asked for."
    )
    not_calibrated_because: str | None = Field(description="Null when it is calibrated.")
    false_positive_rate: ConceptRate | None = Field(description="Null while none was measured.")
    flagged: FlaggedShare
    definition: dict[str, Any] = Field(description="As the operator wrote it.")


class Concept(Answer):
    """One concept of one model."""

    model: str = Field(examples=["SmolLM2-135M-Instruct"])
    concept: str = Field(examples=["weapons"])
    versions: list[ListedConceptVersion] = Field(description="The one that was used last first.")


class ConceptList(Answer):
    """Every concept that a model was ever watched for."""

    start: dt.datetime = Field(
        serialization_alias="from", description="Of what `flagged` counts, inclusive, UTC."
    )
    end: dt.datetime = Field(serialization_alias="to", description="Exclusive, UTC.")
    label: str = Field(default=LABEL, description="What to show beside it.")
    items: list[Concept]


class Calibrations:
    """What calibrations say of definitions, the newest first."""

    def __init__(self, found: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self._of: dict[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        for model, content in found:
            for one in dict(content.get("concepts") or {}).values():
                self._of.setdefault((model, one["digest"]), (content, one))

    def find(self, used: Used) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Return the newest calibration of a definition, and what it says of it."""
        return self._of.get((used.model, used.digest))


def concept_version(
    used: Used,
    calibrations: Calibrations,
    rate_of_flag: Rate | None,
    flagged: FlaggedShare,
    *,
    is_in_force: bool | None,
) -> ListedConceptVersion:
    """Return the answer for one version."""
    found = calibrations.find(used)
    content, own = found or ({}, {})
    rate = _rate(used, content, own) if found else _of_flag(rate_of_flag)
    reason = own.get("reason") if found else None if rate else _NOT_MEASURED
    return ListedConceptVersion(
        version=used.version,
        digest=used.digest,
        used_since=used.used_since,
        is_in_force=is_in_force,
        severity=used.definition.get("severity"),
        positions_required=own.get("positions_required") or used.definition.get("positions_required"),
        positions_judged=content.get("positions_judged"),
        threshold=own.get("threshold"),
        target_false_positive_rate=own.get("target_false_positive_rate")
        or used.definition.get("target_false_positive_rate"),
        status="lead" if reason else "calibrated",
        not_calibrated_because=reason,
        false_positive_rate=rate,
        flagged=flagged,
        definition=used.definition,
    )


def _rate(used: Used, content: Mapping[str, Any], own: Mapping[str, Any]) -> ConceptRate:
    held_out = dict((content.get("held_out") or {}).get("concepts") or {}).get(used.name)
    measured = held_out or own["measured"]
    return ConceptRate(
        estimate=measured["rate"],
        upper=measured["upper_limit"],
        requests=measured["requests"],
        calibration_digest=content.get("digest"),
        is_held_out=held_out is not None,
    )


def _of_flag(rate: Rate | None) -> ConceptRate | None:
    return None if rate is None else ConceptRate(**rate._asdict(), is_held_out=None)


def share(flagged: int, read: int) -> FlaggedShare:
    """Return the share with its interval."""
    measured = precision.measure(flagged, read - flagged)
    return FlaggedShare(
        flagged=flagged,
        read=read,
        estimate=None if measured is None else measured.estimate,
        lower=None if measured is None else measured.lower,
        upper=None if measured is None else measured.upper,
    )
