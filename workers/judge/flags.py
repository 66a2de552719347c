"""The only rule for when concept matches become a flag. Pure.

Explanations confabulate, so one match is only a hint. A request is flagged with a concept when the verified
explanations of enough different positions match it. The rule counts a set of positions, so neither order
nor redelivery changes the result.

A flag is calibrated when the false-positive rate of its rule was measured on benign requests. More
positions give a request more chances to be flagged, so the calibrated rule looks at as many positions as
the calibration did: those that were read first, whether they were verified or not. Which these are is fixed
before anybody knows what they say. So a position that only the screen chose is none of them, as the screen
knows its row. However long the request is and however its positions were batched, the rule sees the same
ones, and sees them once. A flag that needs any other position is a lead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.store.write.evidence import Decision, Evidence, Rate, Sighting


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRule:
    """A concept's severity and how many verified positions must match it."""

    severity: str
    positions_required: int
    calibrated: Rate | None = None
    """The rule's false-positive rate; None until it is measured."""
    is_calibration_void: bool = False
    """Whether a calibration was given that is not of this rule or of the decoder, so that nothing pages."""
    positions_judged: int = 0
    """How many of a request's positions the rate is of, see `judged_positions`."""


def judged_positions(read: Sequence[int], count: int) -> frozenset[int]:
    """Return the positions that a calibrated rule looks at: the first ``count`` of those read, in order."""
    return frozenset(read[:count])


def positions_needed(rules: Iterable[FlagRule]) -> int:
    """Return how many positions must be read for no flag to mean that no rule found anything."""
    return max((max(rule.positions_required, rule.positions_judged) for rule in rules), default=1)


def decide(rules: Mapping[str, FlagRule], evidence: Evidence) -> list[Decision]:
    """Return the flags that the evidence suffices for, sorted by concept.

    ``rules`` maps each watched concept to its rule; a concept without one raises no flag.
    """
    by_concept: dict[str, list[Sighting]] = {}
    for sighting in evidence.sightings:
        by_concept.setdefault(sighting.concept, []).append(sighting)
    decided = [
        _flag(concept, rules[concept], by_concept[concept], evidence)
        for concept in sorted(by_concept.keys() & rules.keys())
    ]
    return [flag for flag in decided if flag.positions_matched >= flag.positions_required]


def _flag(concept: str, rule: FlagRule, sightings: list[Sighting], evidence: Evidence) -> Decision:
    captured = [sighting.captured_at for sighting in sightings]
    matched = {sighting.position for sighting in sightings}
    judged = matched & judged_positions(evidence.positions_read, rule.positions_judged)
    return Decision(
        concept=concept,
        severity=rule.severity,
        positions_matched=len(matched),
        positions_required=rule.positions_required,
        positions_verified=evidence.positions_verified,
        first_captured_at=min(captured),
        last_captured_at=max(captured),
        calibrated=rule.calibrated if len(judged) >= rule.positions_required else None,
        rule_is_calibrated=rule.calibrated is not None or rule.is_calibration_void,
    )
