"""The flag rule: which positions matched decides, and nothing about how they came."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from service.store.write.evidence import Decision, Evidence, Rate, Sighting
from workers.judge.flags import FlagRule, decide

START = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
RULES = {
    "bombs": FlagRule(severity="critical", positions_required=2),
    "spam": FlagRule(severity="info", positions_required=3),
}


def seen(concept: str, position: int, *, second: int | None = None) -> Sighting:
    return Sighting(concept, position, START + dt.timedelta(seconds=position if second is None else second))


sightings = st.lists(
    st.builds(seen, st.sampled_from(["bombs", "spam", "forgotten"]), st.integers(0, 5)), max_size=24
)


def test_two_positions_that_agree_are_a_flag_with_its_evidence() -> None:
    evidence = Evidence([seen("bombs", 7), seen("bombs", 3), seen("spam", 3)], positions_verified=9)

    assert decide(RULES, evidence) == [
        Decision(
            concept="bombs",
            severity="critical",
            positions_matched=2,
            positions_required=2,
            positions_verified=9,
            first_captured_at=START + dt.timedelta(seconds=3),
            last_captured_at=START + dt.timedelta(seconds=7),
        )
    ]


def test_a_flag_is_calibrated_up_to_the_positions_that_benign_requests_had() -> None:
    rate = Rate(0.008, 0.018, 500)
    rules = {
        "bombs": FlagRule(
            severity="critical", positions_required=2, calibrated=rate, calibrated_positions=6
        )
    }
    matches = [seen("bombs", 1), seen("bombs", 2)]

    assert [flag.calibrated for flag in decide(rules, Evidence(matches, 6))] == [rate]
    assert [flag.calibrated for flag in decide(rules, Evidence(matches, 7))] == [None]


def test_one_position_that_matched_twice_counts_once() -> None:
    twice = [seen("bombs", 3), seen("bombs", 3, second=8)]

    assert decide(RULES, Evidence(twice, 1)) == []


def test_positions_do_not_add_up_over_concepts() -> None:
    assert decide(RULES, Evidence([seen("bombs", 1), seen("spam", 2)], 2)) == []


def test_a_concept_that_is_no_longer_watched_for_raises_nothing() -> None:
    assert decide(RULES, Evidence([seen("forgotten", position) for position in range(9)], 9)) == []


def test_nothing_seen_is_no_flag() -> None:
    assert decide(RULES, Evidence([], 12)) == []


@given(sightings)
def test_a_request_is_flagged_exactly_when_enough_different_positions_agree(seen_: list[Sighting]) -> None:
    wanted = {concept: len({one.position for one in seen_ if one.concept == concept}) for concept in RULES}

    decided = {flag.concept: flag.positions_matched for flag in decide(RULES, Evidence(seen_, 6))}

    assert decided == {
        concept: count for concept, count in wanted.items() if count >= RULES[concept].positions_required
    }


@given(st.data(), sightings)
def test_neither_order_nor_redelivery_changes_what_is_decided(
    data: st.DataObject, seen_: list[Sighting]
) -> None:
    again = data.draw(st.lists(st.sampled_from(seen_), max_size=9)) if seen_ else []
    arrived = data.draw(st.permutations(seen_ + again))

    assert decide(RULES, Evidence(arrived, 6)) == decide(RULES, Evidence(seen_, 6))


@given(sightings, sightings)
def test_more_evidence_never_takes_a_flag_back(before: list[Sighting], more: list[Sighting]) -> None:
    first = {flag.concept: flag for flag in decide(RULES, Evidence(before, 6))}
    then = {flag.concept: flag for flag in decide(RULES, Evidence(before + more, 6))}

    assert first.keys() <= then.keys()
    for concept, flag in first.items():
        assert then[concept].positions_matched >= flag.positions_matched
        assert then[concept].first_captured_at <= flag.first_captured_at
        assert then[concept].last_captured_at >= flag.last_captured_at
