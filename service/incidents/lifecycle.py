"""States of an incident, the transitions between them, and the reasons for each: the one owner of these."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where triage of an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"


class EventKind(StrEnum):
    """What happened to an incident."""

    OPENED = "opened"  # by its first finding
    EVIDENCE = "evidence"  # a further finding
    REOPENED = "reopened"  # a further finding on a dismissed incident
    TRIAGED = "triaged"  # somebody changed its state
    ASSIGNED = "assigned"  # somebody gave it to a reviewer, or to nobody
    PROPOSED = "proposed"  # a first reviewer gave a verdict, and a second has to agree


class Reason(StrEnum):
    """Why somebody changed a state."""

    UNDER_REVIEW = "under_review"
    RELEASED = "released"  # whoever looked at it no longer does
    RECONSIDERED = "reconsidered"
    SEEN_IN_REQUEST = "seen_in_request"  # the request or its answer shows it
    SEEN_ELSEWHERE = "seen_elsewhere"  # other evidence than the request does
    NOT_IN_REQUEST = "not_in_request"
    READING_WRONG = "reading_wrong"  # the decoder says what the model did not compute
    CONCEPT_TOO_WIDE = "concept_too_wide"
    TEST_TRAFFIC = "test_traffic"
    DUPLICATE = "duplicate"


class FindingKind(StrEnum):
    """What opens an incident, and what it grows by."""

    FLAG = "flag"
    ANOMALY = "anomaly"


UNDECIDED: Final = "undecided"
"""In a listing: open or acknowledged."""
CLOSED: Final = frozenset({State.CONFIRMED, State.DISMISSED})
UNLABELLED: Final = frozenset({Reason.TEST_TRAFFIC, Reason.DUPLICATE})
"""Dismissals that say nothing of whether the detector was right, so they count in no precision."""

_CONFIRMS: Final = (Reason.SEEN_IN_REQUEST, Reason.SEEN_ELSEWHERE)
_DISMISSES: Final = (
    Reason.NOT_IN_REQUEST,
    Reason.READING_WRONG,
    Reason.CONCEPT_TOO_WIDE,
    Reason.TEST_TRAFFIC,
    Reason.DUPLICATE,
)

TRANSITIONS: Final[Mapping[State, Mapping[State, tuple[Reason, ...]]]] = {
    State.OPEN: {
        State.ACKNOWLEDGED: (Reason.UNDER_REVIEW,),
        State.CONFIRMED: _CONFIRMS,
        State.DISMISSED: _DISMISSES,
    },
    State.ACKNOWLEDGED: {
        State.OPEN: (Reason.RELEASED,),
        State.CONFIRMED: _CONFIRMS,
        State.DISMISSED: _DISMISSES,
    },
    State.CONFIRMED: {State.OPEN: (Reason.RECONSIDERED,)},
    State.DISMISSED: {State.OPEN: (Reason.RECONSIDERED,)},
}
"""By state, the states that may follow with the reasons that each takes."""

SEVERITIES: Final = ("info", "warning", "critical")
"""In rising order, as concepts.yaml names them."""
ANOMALY_SEVERITY: Final = "info"
"""Of an anomaly alone: it says that a state is unusual, never that it is bad."""


def highest(*severities: str) -> str:
    """Return the highest of at least one severity; what is not in `SEVERITIES` ranks below all of them."""
    return max(severities, key=lambda name: SEVERITIES.index(name) if name in SEVERITIES else -1)


def queue_rank(severity: str) -> int:
    """Return the place of a severity in the queue, from 1, the highest first; an unknown one's is last."""
    return len(SEVERITIES) - SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES) + 1


def labels(
    to: State, reason: Reason, concepts: Collection[str], confirmed: Collection[str]
) -> dict[str, bool]:
    """Return what a change of state says of each concept of its incident: nothing, unless a verdict."""
    if to not in CLOSED or reason in UNLABELLED:
        return {}
    return {concept: to == State.CONFIRMED and concept in confirmed for concept in sorted(concepts)}
