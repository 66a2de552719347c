"""When matches become a flag. Pure; nothing else decides it.

A match is a hint about one explanation, and explanations invent things. A request is flagged with a concept
when the verified explanations of enough different positions agree on it. What counts is which positions
matched: neither in what order they came nor how often they were delivered.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.store.write.evidence import Decision, Evidence, Sighting


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRule:
    """How much agreement one concept needs."""

    severity: str
    positions_required: int


def decide(rules: Mapping[str, FlagRule], evidence: Evidence) -> list[Decision]:
    """Return the flags that the evidence is enough for, by concept; ``rules`` are those in force.

    A concept without a rule is no longer watched for and raises nothing.
    """
    found: dict[str, list[Sighting]] = {}
    for sighting in evidence.sightings:
        found.setdefault(sighting.concept, []).append(sighting)
    decided = [
        _flag(concept, rules[concept], found[concept], evidence.positions_verified)
        for concept in sorted(found.keys() & rules.keys())
    ]
    return [flag for flag in decided if flag.positions_matched >= flag.positions_required]


def _flag(concept: str, rule: FlagRule, sightings: list[Sighting], verified: int) -> Decision:
    captured = [sighting.captured_at for sighting in sightings]
    return Decision(
        concept=concept,
        severity=rule.severity,
        positions_matched=len({sighting.position for sighting in sightings}),
        positions_required=rule.positions_required,
        positions_verified=verified,
        first_captured_at=min(captured),
        last_captured_at=max(captured),
    )
