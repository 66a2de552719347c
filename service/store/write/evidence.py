"""Plain values between the store and the judge: evidence for flags, and decisions. Pure.

The store gathers the evidence under the capture's lock and knows no rule. The judge knows the rule and no
table.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.incidents.lifecycle import FindingKind


class Sighting(NamedTuple):
    """A match of one concept by a verified explanation."""

    concept: str
    position: int
    captured_at: dt.datetime


class Evidence(NamedTuple):
    """What one decoder read of one request at one layer."""

    sightings: Sequence[Sighting]
    """The verified matches, in any order."""
    positions_read: Sequence[int]
    """Positions with an explanation, verified or not, in the order in which they were stored, up to the
    first that only the screen chose."""
    positions_verified: int
    """Number of positions with a verified explanation, matched or not."""


class Rate(NamedTuple):
    """A false-positive rate as it was measured on benign requests."""

    rate: float
    """Share of benign requests that the rule flags."""
    upper_limit: float
    """Of the rate, one-sided, with 95% confidence."""
    requests: int
    """Number of benign requests."""


class ConceptVersion(NamedTuple):
    """What a concept's name stands for."""

    version: int | None
    """None in concepts.yaml of version 1."""
    digest: str
    """SHA-256 of the definition."""


class Decision(NamedTuple):
    """A flag to raise or update."""

    concept: str
    severity: str
    positions_matched: int
    positions_required: int
    positions_verified: int
    first_captured_at: dt.datetime
    """Earliest capture among the matching positions; ``last_captured_at`` is the latest."""
    last_captured_at: dt.datetime
    calibrated: Rate | None = None
    """The rule's false-positive rate; None for a lead."""
    rule_is_calibrated: bool = False
    """Whether the rule has a rate, or was given one that is void: this flag may be a lead all the same."""


class Finding(NamedTuple):
    """What opens an incident or adds to one: a flag, or anomalies of the same capture."""

    kind: FindingKind
    concept: str | None
    """Of a flag; None for anomalies, of which an incident has one finding."""
    severity: str
    first_captured_at: dt.datetime
    last_captured_at: dt.datetime
    figures: Mapping[str, Any]
    """As JSON: what the finding stands on, kept in the incident's event as it was then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """The flag rule, with the digests to store with each flag."""

    decide: Callable[[Evidence], Sequence[Decision]]
    concepts_digest: str
    concept_versions: Mapping[str, ConceptVersion] = field(default_factory=dict)
    """By concept name. A match by another definition is no evidence."""
    calibration_digest: str | None = None
    """SHA-256 of the concept calibration in force."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Its thresholds by concept name. A match with a lower score, made when another was in force, is no
    evidence."""
    anomaly_p_value: float | None = None
    """Positions with a p-value at or below this one belong to an incident's evidence; None: no position."""
    positions_needed: int = 1
    """How many positions must be read for no flag to mean that no rule found anything."""
