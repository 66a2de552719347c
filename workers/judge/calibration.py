"""A concept calibration: how many benign requests each concept's rule flags, frozen in one file.

It holds for one decoder at one layer, and for each concept as it was defined. What does not fit is left
out with a reason, and its flags are leads.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.store.write.evidence import Rate
from workers.judge.concepts import Concept, ConceptsError, ConceptSet
from workers.judge.flags import FlagRule
from workers.nla.decoder import DecoderIdentity

FORMAT = "subtext-concept-calibration-2"
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Frozen):
    """Share of benign requests that were flagged."""

    requests: Annotated[int, Field(ge=1)]
    incidents: _Count
    rate: _Share
    upper_limit: _Share
    """One-sided, with 95% confidence, of the rate of later requests like these."""


class CalibratedConcept(_Frozen):
    """A concept's rule and what it does on benign requests."""

    version: int | None
    digest: str
    target_false_positive_rate: _Share
    positions_required: Annotated[int, Field(ge=2)]
    threshold: _Share | None
    """On the scores of the matchers that have one, never below what the definition asks; 1: they do not
    count."""
    reason: str | None
    """Why no rule meets the target, so that the concept stays a lead; None when one does."""
    measured: Measured
    scores: dict[str, float]
    """Quantiles of the incident-level scores, `workers.calibrate.incidents.score`."""


class Traffic(_Frozen):
    """The benign requests that a calibration stands on."""

    source: str
    captured_from: AwareDatetime | None
    captured_until: AwareDatetime | None
    requests: Annotated[int, Field(ge=1)]
    requests_left_out: _Count
    """Of which fewer positions were read than the calibration judges."""
    readings: Annotated[int, Field(ge=1)]
    """Of the positions that the calibration judges."""
    verified_readings: _Count
    verified_positions: dict[str, float]
    """Quantiles, by request."""
    last_position: dict[str, float]
    """Quantiles of the last read position, by request: how long the requests are."""


class HeldOut(_Frozen):
    """Other benign requests, on which the frozen rules were tried."""

    traffic: Traffic
    concepts: dict[str, Measured]
    any_concept: Measured


class ConceptCalibration(_Frozen):
    """The whole file."""

    format: Literal["subtext-concept-calibration-2"]
    made_at: AwareDatetime
    decoder_digest: str
    model: str
    layer: int
    concepts_digest: str
    traffic: Traffic
    positions_judged: Annotated[int, Field(ge=2)]
    """How many positions of a request the rates are of: those that were read first, verified or not."""
    concepts: dict[str, CalibratedConcept]
    any_concept: Measured
    """Requests flagged by any concept with a rule, on the requests that the rules were chosen on."""
    held_out: HeldOut | None = None


class Loaded(NamedTuple):
    """A calibration with its file's SHA-256."""

    calibration: ConceptCalibration
    digest: str


class RejectedReason(StrEnum):
    """Why a calibration, or a part of it, is not in force."""

    ABSENT = "absent"
    ANOTHER_DECODER = "another_decoder"
    ANOTHER_CONCEPT = "another_concept"


class InForce(NamedTuple):
    """The rules that a worker judges by."""

    rules: Mapping[str, FlagRule]
    thresholds: Mapping[str, float]
    """Calibrated thresholds by concept; the others keep that of their definition."""
    digest: str | None
    """Of the calibration in force."""
    made_at: dt.datetime | None
    rejected: frozenset[RejectedReason]


def load(path: Path) -> Loaded:
    """Read and validate a calibration; ConceptsError names file, field and fix."""
    try:
        content = path.read_bytes()
        calibration = ConceptCalibration.model_validate_json(content)
    except OSError as error:
        raise ConceptsError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise ConceptsError(
            f"{path}: {field}: {first['msg']}; run `subtext calibrate concepts` again"
        ) from None
    return Loaded(calibration, hashlib.sha256(content).hexdigest())


def save(calibration: ConceptCalibration, path: Path) -> None:
    """Write the file; what was there before is replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def put_in_force(concepts: ConceptSet, loaded: Loaded | None, identity: DecoderIdentity) -> InForce:
    """Return the rules of the concepts, calibrated as far as the calibration is of them."""
    plain = {concept.name: _plain(concept) for concept in concepts.concepts}
    if loaded is None:
        return InForce(plain, {}, None, None, frozenset({RejectedReason.ABSENT}))
    calibration = loaded.calibration
    if (calibration.decoder_digest, calibration.layer) != (identity.digest, identity.layer):
        void = {name: replace(rule, is_calibration_void=True) for name, rule in plain.items()}
        return InForce(void, {}, None, None, frozenset({RejectedReason.ANOTHER_DECODER}))
    own = {
        concept.name: calibration.concepts[concept.name]
        for concept in concepts.concepts
        if concept.name in calibration.concepts
        and calibration.concepts[concept.name].digest == concept.digest
    }
    met = {name: found for name, found in own.items() if found.reason is None}
    others = {
        name: replace(rule, is_calibration_void=True) for name, rule in plain.items() if name not in own
    }
    rules = plain | others
    rules |= {
        name: FlagRule(
            severity=plain[name].severity,
            positions_required=met[name].positions_required,
            calibrated=_rate(calibration, name),
            positions_judged=calibration.positions_judged,
        )
        for name in met
    }
    thresholds = {name: found.threshold for name, found in met.items() if found.threshold is not None}
    is_partial = own.keys() != plain.keys()
    rejected = frozenset({RejectedReason.ANOTHER_CONCEPT} if is_partial else ())
    return InForce(rules, thresholds, loaded.digest, calibration.made_at, rejected)


def _rate(calibration: ConceptCalibration, name: str) -> Rate:
    """Return the rate that flags tell: on requests that the rule was not chosen on, where there are any."""
    found = calibration.concepts[name].measured
    if calibration.held_out is not None:
        found = calibration.held_out.concepts.get(name, found)
    return Rate(found.rate, found.upper_limit, found.requests)


def _plain(concept: Concept) -> FlagRule:
    return FlagRule(severity=concept.severity, positions_required=concept.positions_required)
