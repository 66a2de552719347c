"""What flags are decided on and what is decided, as plain values between the store and who judges. Pure.

The store counts under the request's lock and knows no rule; the judge knows the rule and no table.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sighting(NamedTuple):
    """A concept that the verified explanation of one position matched."""

    concept: str
    position: int
    captured_at: dt.datetime


class Evidence(NamedTuple):
    """All that is known of one request at one layer, as one decoder read it, in any order."""

    sightings: Sequence[Sighting]
    positions_verified: int
    """Positions with a verified explanation, whatever it matched."""


class Decision(NamedTuple):
    """A flag that the evidence is enough for."""

    concept: str
    severity: str
    positions_matched: int
    positions_required: int
    positions_verified: int
    first_captured_at: dt.datetime
    """Of the positions that matched; the last one likewise."""
    last_captured_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What flags are judged by: the rule, and where it comes from."""

    decide: Callable[[Evidence], Sequence[Decision]]
    concepts_digest: str
    false_positive_rate: float | None
