import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.plugin import sampling
from subtext_sidecar.plugin.sampling import NEVER, Policy

POLICIES = st.builds(
    Policy,
    request_rate=st.just(1.0),
    decode_stride=st.integers(1, 40),
    window=st.integers(1, 40),
    prompt_window=st.integers(0, 8),
    skip_first=st.integers(0, 30),
    max_rows_per_request=st.integers(8, 100),
    seed=st.integers(0, 5),
).filter(lambda policy: policy.window <= policy.decode_stride)
IDS = st.text(min_size=1, max_size=40)


def policy_with(**changes: object) -> Policy:
    fields: dict[str, object] = {
        "request_rate": 1.0,
        "decode_stride": 8,
        "window": 2,
        "prompt_window": 2,
        "skip_first": 10,
        "max_rows_per_request": 64,
        "seed": 0,
    }
    return Policy(**{**fields, **changes})  # type: ignore[arg-type]  # the tests' own fields


def taken(policy: Policy, request_id: str, prompt_tokens: int, tokens: int) -> list[int]:
    choice = sampling.choose(policy, request_id, prompt_tokens)
    if choice is None:
        return []
    positions = []
    position = sampling.next_position(choice, 0)
    while position < tokens:
        positions.append(position)
        position = sampling.next_position(choice, position + 1)
    return positions


@given(policy=POLICIES, request_id=IDS, prompt=st.integers(1, 200), tokens=st.integers(1, 800))
def test_positions_are_deterministic_ordered_and_within_the_caps(
    policy: Policy, request_id: str, prompt: int, tokens: int
) -> None:
    positions = taken(policy, request_id, prompt, tokens)

    assert positions == taken(policy, request_id, prompt, tokens)
    assert positions == sorted(set(positions))
    assert len(positions) <= policy.max_rows_per_request
    assert all(position >= policy.skip_first for position in positions)
    assert all(position >= prompt - policy.prompt_window for position in positions)


@given(policy=POLICIES, request_id=IDS, prompt=st.integers(1, 200), position=st.integers(0, 900))
def test_the_next_position_is_the_first_taken_one(
    policy: Policy, request_id: str, prompt: int, position: int
) -> None:
    choice = sampling.choose(policy, request_id, prompt)
    assert choice is not None
    following = sampling.next_position(choice, position)

    assert following >= position
    assert following == NEVER or sampling.next_position(choice, following) == following
    assert all(
        sampling.next_position(choice, between) == following
        for between in range(position, min(following, position + 50))
    )


def test_the_last_prompt_tokens_are_always_taken() -> None:
    assert set(taken(policy_with(), "a", 50, 50)) == {48, 49}


def test_every_decode_position_has_exactly_the_stated_probability_over_offsets() -> None:
    policy = policy_with(skip_first=0)
    choice = sampling.choose(policy, "a", 20)
    assert choice is not None
    offsets = [choice._replace(offset=offset) for offset in range(policy.decode_stride)]

    for position in range(20, choice.decode_stop):
        hits = sum(sampling.next_position(one, position) == position for one in offsets)
        assert hits / len(offsets) == sampling.probability_of(choice, position)


def test_the_row_cap_holds_for_every_offset_and_is_reached() -> None:
    policy = policy_with(max_rows_per_request=20, skip_first=0)
    choice = sampling.choose(policy, "a", 20)
    assert choice is not None

    for offset in range(policy.decode_stride):
        one = choice._replace(offset=offset)
        rows = sum(sampling.next_position(one, position) == position for position in range(1000))
        assert rows == 20


def test_windows_are_adjacent_positions() -> None:
    positions = [position for position in taken(policy_with(window=3), "a", 20, 200) if position >= 30]

    runs = [b - a for a, b in itertools.pairwise(positions)]

    assert set(runs) == {1, 8 - 2}


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_requests_are_taken_at_the_stated_rate(rate: float) -> None:
    requests = 20_000
    hits = sum(
        sampling.choose(policy_with(request_rate=rate), f"r{n}", 20) is not None for n in range(requests)
    )

    assert abs(hits - rate * requests) <= 4 * math.sqrt(requests * rate * (1 - rate))


def test_offsets_do_not_depend_on_whether_the_rate_is_low() -> None:
    stride = 8
    choices = [sampling.choose(policy_with(request_rate=0.1), f"r{n}", 20) for n in range(40_000)]
    offsets = [choice.offset for choice in choices if choice is not None]

    expected = len(offsets) / stride
    assert all(abs(offsets.count(o) - expected) < 4 * math.sqrt(expected) for o in range(stride))


def test_another_seed_takes_other_requests() -> None:
    first = {n for n in range(1000) if sampling.choose(policy_with(request_rate=0.3), f"r{n}", 9)}
    second = {n for n in range(1000) if sampling.choose(policy_with(request_rate=0.3, seed=1), f"r{n}", 9)}

    assert len(first & second) < len(first) / 2


def test_weighting_by_the_probability_is_unbiased() -> None:
    policy = policy_with(request_rate=0.3, skip_first=0)
    requests, prompt, tokens = 6000, 12, 80
    # The estimate of the number of eligible positions, whose truth is known.
    estimates = []
    for number in range(requests):
        choice = sampling.choose(policy, f"r{number}", prompt)
        positions = taken(policy, f"r{number}", prompt, tokens)
        estimates.append(
            sum(1 / sampling.probability_of(choice, position) for position in positions) if choice else 0.0
        )
    truth = (tokens - prompt) + policy.prompt_window

    mean = sum(estimates) / requests
    deviation = math.sqrt(sum((one - mean) ** 2 for one in estimates) / requests)
    assert abs(mean - truth) < 3 * deviation / math.sqrt(requests)


def test_a_row_tells_why_it_was_taken() -> None:
    choice = sampling.choose(policy_with(request_rate=1.0), "a", 20)
    assert choice is not None

    assert sampling.reason_of(choice, 19) == "prompt_end"
    assert sampling.reason_of(choice, 20) == "decode"
    assert sampling.probability_of(choice, 19) == 1.0
    assert sampling.probability_of(choice, 20) == 0.25
