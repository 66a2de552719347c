"""The flag rule: which positions matched decides, and nothing about how they came."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.write.evidence import Decision, Evidence, Rate, Sighting
from workers.judge.flags import FlagRule, decide, positions_needed

START = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
RULES = {
    "bombs": FlagRule(severity="critical", positions_required=2),
    "spam": FlagRule(severity="info", positions_required=3),
}


def seen(concept: str, position: int, *, second: int | None = None) -> Sighting:
    return Sighting(concept, position, START + dt.timedelta(seconds=position if second is None else second))


RATE = Rate(0.008, 0.018, 500)
JUDGED = 4
CALIBRATED = {
    "bombs": FlagRule(severity="critical", positions_required=2, calibrated=RATE, positions_judged=JUDGED)
}


def evidence_of(sightings: Sequence[Sighting], read: Sequence[int]) -> Evidence:
    """Return evidence of positions that were all verified, in the order in which they were read."""
    return Evidence(sightings, read, len(read))


sightings = st.lists(
    st.builds(seen, st.sampled_from(["bombs", "spam", "forgotten"]), st.integers(0, 5)), max_size=24
)


def test_as_many_positions_must_be_read_as_any_rule_looks_at() -> None:
    assert positions_needed(RULES.values()) == 3
    assert positions_needed([*RULES.values(), *CALIBRATED.values()]) == JUDGED
    assert positions_needed([]) == 1


def test_a_lead_of_a_void_calibration_pages_nobody() -> None:
    rule = FlagRule(severity="critical", positions_required=2, is_calibration_void=True)

    [lead] = decide({"bombs": rule}, evidence_of([seen("bombs", 0), seen("bombs", 1)], range(2)))

    assert (lead.calibrated, lead.rule_is_calibrated) == (None, True)


def test_two_positions_that_agree_are_a_flag_with_its_evidence() -> None:
    evidence = evidence_of([seen("bombs", 7), seen("bombs", 3), seen("spam", 3)], range(9))

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


@pytest.mark.parametrize(
    ("read", "status"),
    [
        ([1, 2], RATE),
        # However many were read after those that are judged, and whatever they say.
        ([9, 2, 8, 1, 7, 6, 5, 4, 3], RATE),
        # One of the two was read after them.
        ([9, 2, 8, 7, 1], None),
    ],
)
def test_a_flag_is_calibrated_when_the_positions_that_were_read_first_suffice(
    read: list[int], status: Rate | None
) -> None:
    matches = [seen("bombs", 1), seen("bombs", 2)]

    [flag] = decide(CALIBRATED, evidence_of(matches, read))

    assert flag.calibrated == status
    assert flag.rule_is_calibrated


def test_one_position_that_matched_twice_counts_once() -> None:
    twice = [seen("bombs", 3), seen("bombs", 3, second=8)]

    assert decide(RULES, evidence_of(twice, [3])) == []


def test_positions_do_not_add_up_over_concepts() -> None:
    assert decide(RULES, evidence_of([seen("bombs", 1), seen("spam", 2)], [1, 2])) == []


def test_a_concept_that_is_no_longer_watched_for_raises_nothing() -> None:
    assert decide(RULES, evidence_of([seen("forgotten", place) for place in range(9)], range(9))) == []


def test_nothing_seen_is_no_flag() -> None:
    assert decide(RULES, evidence_of([], range(12))) == []


@given(sightings)
def test_a_request_is_flagged_exactly_when_enough_different_positions_agree(seen_: list[Sighting]) -> None:
    wanted = {concept: len({one.position for one in seen_ if one.concept == concept}) for concept in RULES}

    decided = {flag.concept: flag.positions_matched for flag in decide(RULES, evidence_of(seen_, range(6)))}

    assert decided == {
        concept: count for concept, count in wanted.items() if count >= RULES[concept].positions_required
    }


@given(st.data(), sightings)
def test_neither_order_nor_redelivery_changes_what_is_decided(
    data: st.DataObject, seen_: list[Sighting]
) -> None:
    again = data.draw(st.lists(st.sampled_from(seen_), max_size=9)) if seen_ else []
    arrived = data.draw(st.permutations(seen_ + again))

    assert decide(RULES, evidence_of(arrived, range(6))) == decide(RULES, evidence_of(seen_, range(6)))


@given(sightings, sightings)
def test_more_evidence_never_takes_a_flag_back(before: list[Sighting], more: list[Sighting]) -> None:
    first = {flag.concept: flag for flag in decide(RULES, evidence_of(before, range(6)))}
    then = {flag.concept: flag for flag in decide(RULES, evidence_of(before + more, range(6)))}

    assert first.keys() <= then.keys()
    for concept, flag in first.items():
        assert then[concept].positions_matched >= flag.positions_matched
        assert then[concept].first_captured_at <= flag.first_captured_at
        assert then[concept].last_captured_at >= flag.last_captured_at


class Arrivals:
    """What the store knows of one request while batches of its positions come in."""

    def __init__(self, matching: frozenset[int]) -> None:
        self.matching = matching
        self.read: list[int] = []
        self.status: Rate | None = None
        self.is_flagged = False

    def store(self, batch: Sequence[int]) -> None:
        """Store what is new of a batch; a flag keeps the status that it was raised with."""
        self.read += [place for place in dict.fromkeys(batch) if place not in self.read]
        matches = [seen("bombs", place) for place in self.read if place in self.matching]
        for flag in decide(CALIBRATED, evidence_of(matches, self.read)):
            if not self.is_flagged:
                self.is_flagged, self.status = True, flag.calibrated


@given(st.data(), st.integers(1, 16))
def test_neither_batches_nor_redeliveries_change_a_status(data: st.DataObject, count: int) -> None:
    order = data.draw(st.permutations(range(count)))
    matching = data.draw(st.frozensets(st.sampled_from(order)))
    at_once, in_parts = Arrivals(matching), Arrivals(matching)

    at_once.store(order)
    start = 0
    while start < count:
        stop = data.draw(st.integers(start + 1, count))
        again = data.draw(st.lists(st.sampled_from(order[:stop]), max_size=4))
        in_parts.store([*order[start:stop], *again])
        start = stop

    assert (in_parts.is_flagged, in_parts.status) == (at_once.is_flagged, at_once.status)
    is_calibrated = len(matching & set(order[:JUDGED])) >= 2
    assert in_parts.status == (RATE if is_calibrated else None)


@pytest.mark.parametrize("count", [4, 9, 16])
@pytest.mark.parametrize("order", ["by position", "at random"])
def test_a_benign_request_of_any_length_is_a_calibrated_flag_at_the_stated_rate(
    count: int, order: str
) -> None:
    rng = np.random.default_rng(count)
    requests, chance = 5000, 0.05
    # Two of the judged positions agree by chance, or all of a request that is about the concept.
    about = rng.uniform(size=requests) < 0.002
    nominal = 0.998 * (1 - 0.95**4 - 4 * chance * 0.95**3) + 0.002
    leads = calibrated = 0
    for is_about in about.tolist():
        matching = frozenset(
            np.flatnonzero(rng.uniform(size=count) < (1.0 if is_about else chance)).tolist()
        )
        arrived = Arrivals(matching)
        for place in range(count) if order == "by position" else rng.permutation(count).tolist():
            arrived.store([place])
        calibrated += arrived.status is not None
        leads += arrived.is_flagged and arrived.status is None

    # Three standard errors are left to chance.
    assert calibrated / requests <= nominal + 3 * (nominal / requests) ** 0.5
    assert calibrated / requests >= nominal - 3 * (nominal / requests) ** 0.5
    # What more positions add is leads.
    assert (leads > calibrated) == (count > JUDGED)
