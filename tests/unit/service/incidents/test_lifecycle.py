from service.incidents import lifecycle
from service.incidents.lifecycle import CLOSED, TRANSITIONS, UNLABELLED, Reason, State


def test_every_state_can_be_left_and_every_reason_is_taken() -> None:
    assert set(TRANSITIONS) == set(State)
    used = {
        reason for targets in TRANSITIONS.values() for reasons in targets.values() for reason in reasons
    }
    assert used == set(Reason)
    for state, targets in TRANSITIONS.items():
        assert state not in targets
        assert all(targets.values())


def test_a_verdict_is_taken_back_before_another_is_given() -> None:
    for state in CLOSED:
        assert set(TRANSITIONS[state]) == {State.OPEN}


def test_only_dismissals_can_be_worth_no_label() -> None:
    assert set(TRANSITIONS[State.OPEN][State.DISMISSED]) > UNLABELLED
    assert not set(TRANSITIONS[State.OPEN][State.CONFIRMED]) & UNLABELLED


def test_the_highest_severity_wins_and_one_that_nobody_knows_is_below_all() -> None:
    assert lifecycle.highest("info", "critical", "warning") == "critical"
    assert lifecycle.highest("grave", "info") == "info"
    assert lifecycle.highest("grave") == "grave"


def test_the_queue_begins_with_the_highest_severity_and_ends_with_those_that_nobody_knows() -> None:
    assert sorted(["grave", "info", "critical", "warning"], key=lifecycle.queue_rank) == [
        "critical",
        "warning",
        "info",
        "grave",
    ]
