import uuid

import pytest

from service.incidents.lifecycle import State
from service.incidents.review import Identity, OwnProposalError, Proposal, Step, step

ONE, OTHER = Identity(uuid.UUID(int=1)), Identity(None, "https://login.example", "somebody")
PROPOSED = Proposal(3, State.CONFIRMED, {"harm": True}, ONE)


@pytest.mark.parametrize("standing", [None, PROPOSED])
def test_where_nobody_asks_for_two_every_verdict_decides(standing: Proposal | None) -> None:
    assert (
        step(needs_second=False, standing=standing, to=State.CONFIRMED, labels={}, by=ONE) is Step.DECIDES
    )


@pytest.mark.parametrize(
    ("to", "labels"), [(State.CONFIRMED, {"harm": False}), (State.DISMISSED, {"harm": False})]
)
@pytest.mark.parametrize("by", [ONE, OTHER], ids=["the same", "another"])
def test_whoever_says_something_else_proposes_it(to: State, labels: dict[str, bool], by: Identity) -> None:
    assert step(needs_second=True, standing=None, to=to, labels=labels, by=by) is Step.PROPOSES
    assert step(needs_second=True, standing=PROPOSED, to=to, labels=labels, by=by) is Step.PROPOSES


def test_another_one_agrees_and_nobody_with_himself() -> None:
    said = {"needs_second": True, "standing": PROPOSED, "to": State.CONFIRMED, "labels": {"harm": True}}

    assert step(**said, by=OTHER) is Step.AGREES  # type: ignore[arg-type]  # each of its own type
    with pytest.raises(OwnProposalError, match="another person or another key"):
        step(**said, by=ONE)  # type: ignore[arg-type]  # each of its own type
