"""What becomes of a verdict where one reviewer is not enough: a proposal, until another one agrees. Pure.

A proposal stands until anything but an assignment happens to its incident: its maker has not seen that.
"""

import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from service.incidents.lifecycle import State


class Identity(NamedTuple):
    """Who acts: an API key, in whichever session, or a person whom an issuer named."""

    key_id: uuid.UUID | None
    issuer: str | None = None
    person: str | None = None


class Proposal(NamedTuple):
    """A verdict that one reviewer gave and that stands."""

    version: int
    """Of its event."""
    to: State
    labels: Mapping[str, bool]
    by: Identity


class Step(StrEnum):
    """What a verdict is."""

    DECIDES = "decides"
    PROPOSES = "proposes"
    AGREES = "agrees"


class OwnProposalError(Exception):
    """Somebody gave the verdict a second time that he gave first."""

    def __init__(self) -> None:
        super().__init__(
            "you gave this verdict, and a concept of the incident asks for two reviewers: another person or"
            " another key, of which neither made the other, has to give the same one"
        )


def step(
    *,
    needs_second: bool,
    standing: Proposal | None,
    to: State,
    labels: Mapping[str, bool],
    by: Identity,
) -> Step:
    """Return what a verdict is; raises OwnProposalError.

    Who says something else than the standing proposal makes one of his own, which takes its place. Reasons
    may differ between the two: what counts is the state and what is said of each concept.
    """
    if not needs_second:
        return Step.DECIDES
    if standing is None or (standing.to, dict(standing.labels)) != (to, dict(labels)):
        return Step.PROPOSES
    if standing.by == by:
        raise OwnProposalError
    return Step.AGREES
