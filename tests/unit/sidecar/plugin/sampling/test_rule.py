import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling import rule as sampling
from subtext_sidecar.plugin.sampling.rule import NEVER, RANDOMNESS_END, Choice
from subtext_sidecar.plugin.secret import key_of
from tests.support.secret import KEY

CONTEXT = 1000
POLICY = CapturePolicy(request_rate=1.0, decode_stride=8, window=2, prompt_window=2, skip_first=10)
POLICIES = st.builds(
    CapturePolicy,
    decode_stride=st.integers(1, 40),
    window=st.integers(1, 40),
    prompt_window=st.integers(0, 8),
    skip_first=st.integers(0, 30),
    max_rows_per_request=st.integers(48, 100),
    seed=st.integers(0, 5),
).filter(lambda policy: policy.window <= policy.decode_stride)
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
RATES = st.floats(0.0, 1.0)


def choice_of(
    policy: CapturePolicy, request_id: str, prompt_tokens: int, context: int = CONTEXT
) -> Choice | None:
    drawn = sampling.draw(KEY, policy.seed, request_id)
    threshold = sampling.threshold(policy.request_rate)
    if drawn.randomness < threshold:
        return None
    return sampling.choose(policy, drawn, prompt_tokens, sampling.probability(threshold), context)


def certain_choice(
    policy: CapturePolicy, request_id: str, prompt_tokens: int, context: int = CONTEXT
) -> Choice:
    choice = choice_of(replace(policy, request_rate=1.0), request_id, prompt_tokens, context)
    assert choice is not None
    return choice


def taken(policy: CapturePolicy, request_id: str, prompt_tokens: int, tokens: int) -> list[int]:
    choice = choice_of(policy, request_id, prompt_tokens)
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
    policy: CapturePolicy, request_id: str, prompt: int, tokens: int
) -> None:
    positions = taken(policy, request_id, prompt, tokens)

    assert positions == taken(policy, request_id, prompt, tokens)
    assert positions == sorted(set(positions))
    assert len(positions) <= policy.max_rows_per_request
    assert all(position >= policy.skip_first for position in positions)
    assert all(position >= prompt - policy.prompt_window for position in positions)


@given(policy=POLICIES, request_id=IDS, prompt=st.integers(1, 200), answer=st.integers(1, 700))
def test_of_no_request_more_is_taken_than_its_most(
    policy: CapturePolicy, request_id: str, prompt: int, answer: int
) -> None:
    computed = prompt + answer - 1  # the last token is never computed
    rows = len(taken(policy, request_id, prompt, computed))

    assert rows <= sampling.most_rows(policy, prompt, answer, CONTEXT)
    assert rows <= sampling.most_rows(policy, prompt, None, CONTEXT)
    assert sampling.most_rows(policy, prompt, None, CONTEXT) <= policy.max_rows_per_request


def test_the_most_rows_are_those_of_what_the_engine_computes() -> None:
    assert sampling.most_rows(POLICY, 1, 1, CONTEXT) == 0
    assert sampling.most_rows(POLICY, 60, 1, CONTEXT) == 2
    assert sampling.most_rows(POLICY, 60, 17, CONTEXT) == 2 + 4
    assert sampling.most_rows(POLICY, 60, 17, CONTEXT, role="prefill") == 2
    assert sampling.most_rows(POLICY, 60, 17, CONTEXT, role="decode") == 4
    assert sampling.most_rows(POLICY, 60, None, CONTEXT) == POLICY.max_rows_per_request


@given(policy=POLICIES, request_id=IDS, prompt=st.integers(1, 200), position=st.integers(0, 900))
def test_the_next_position_is_the_first_taken_one(
    policy: CapturePolicy, request_id: str, prompt: int, position: int
) -> None:
    choice = certain_choice(policy, request_id, prompt)
    following = sampling.next_position(choice, position)

    assert following >= position
    assert following == NEVER or sampling.next_position(choice, following) == following
    assert all(
        sampling.next_position(choice, between) == following
        for between in range(position, min(following, position + 50))
    )


@given(request_id=IDS, seed=st.integers(0, 1000), one=RATES, other=RATES)
def test_what_a_rate_takes_every_higher_rate_takes_too(
    request_id: str, seed: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    randomness = sampling.draw(KEY, seed, request_id).randomness

    if randomness >= sampling.threshold(low):
        assert randomness >= sampling.threshold(high)


@given(rate=RATES)
def test_a_threshold_stands_for_its_rate(rate: float) -> None:
    threshold = sampling.threshold(rate)

    assert 0 <= threshold <= RANDOMNESS_END
    assert sampling.probability(threshold) == pytest.approx(rate, abs=2**-57)


def test_rate_one_takes_all_and_rate_zero_none() -> None:
    assert sampling.threshold(1.0) == 0
    assert sampling.threshold(0.0) == RANDOMNESS_END
    assert sampling.probability(0) == 1.0


# OpenTelemetry, "TraceState: Probability Sampling": the thresholds of its table, and their exact
# probabilities, at five digits of precision.
@pytest.mark.parametrize(
    ("one_in", "th", "exact"),
    [
        (1, "0", 1.0),
        (2, "8", 0.5),
        (3, "aaaab", 0.33333301544189453),
        (4, "c", 0.25),
        (5, "ccccd", 0.19999980926513672),
        (8, "e", 0.125),
        (10, "e6666", 0.10000038146972656),
        (16, "f", 0.0625),
        (100, "fd70a4", 0.009999990463256836),
        (1000, "ffbe76d", 0.000999998301267624),
        (10_000, "fff97247", 0.00010000006295740604),
        (100_000, "ffff583a5", 1.0000003385357559e-05),
        (1_000_000, "ffffef391", 9.999930625781417e-07),
    ],
)
def test_thresholds_are_those_of_the_specification(one_in: int, th: str, exact: float) -> None:
    written = int(th.ljust(14, "0"), 16)

    assert sampling.probability(written) == exact
    # Ours has all 14 digits; the table's are rounded to fewer.
    assert abs(sampling.threshold(1 / one_in) - written) <= 16 ** (14 - len(th))


def test_the_last_prompt_tokens_are_always_taken() -> None:
    assert set(taken(POLICY, "a", 50, 50)) == {48, 49}


@pytest.mark.parametrize(
    ("cap", "context", "lengths"),
    [
        (3, 60, {40}),  # one window, somewhere in the answer
        (6, 60, {4, 8, 24}),
        (8, 45, {4, 8}),  # the context ends in a regular block, so that nothing is stretched
        (64, 60, {4}),
    ],
)
def test_every_position_of_an_answer_has_exactly_the_stated_probability_over_offsets(
    cap: int, context: int, lengths: set[int]
) -> None:
    policy = replace(
        POLICY, skip_first=0, decode_stride=4, window=1, prompt_window=2, max_rows_per_request=cap
    )
    choice = certain_choice(policy, "a", 20, context)
    offsets = [replace(choice, offset=offset) for offset in range(math.lcm(*lengths))]
    probabilities = []

    for position in range(20, context):
        hits = sum(sampling.next_position(one, position) == position for one in offsets)
        probabilities.append(sampling.probability_of(choice, position))
        assert hits / len(offsets) == pytest.approx(probabilities[-1], abs=1e-12)
    assert set(probabilities) == {1 / length for length in lengths}
    assert probabilities == sorted(probabilities, reverse=True)
    assert sampling.next_position(choice, context) == NEVER


@given(
    policy=POLICIES,
    prompt=st.integers(1, 200),
    answer=st.integers(1, 100_000),
    offset=st.integers(0, 2**64 - 1),
)
def test_the_row_cap_holds_for_every_offset_and_every_length(
    policy: CapturePolicy, prompt: int, answer: int, offset: int
) -> None:
    context = prompt + answer
    choice = replace(certain_choice(policy, "a", prompt, context), offset=offset)
    rows, position = 0, sampling.next_position(choice, 0)
    while position != NEVER:
        assert position < context
        rows, position = rows + 1, sampling.next_position(choice, position + 1)

    assert rows <= policy.max_rows_per_request
    expected = sum(sampling.probability_of(choice, position) for position in range(prompt, context))
    assert expected <= policy.max_rows_per_request + 1e-9


def test_the_row_cap_is_reached() -> None:
    policy = replace(POLICY, max_rows_per_request=20, skip_first=0)
    choice = certain_choice(policy, "a", 20)

    for offset in range(1000):
        one = replace(choice, offset=offset)
        rows = sum(sampling.next_position(one, position) == position for position in range(CONTEXT))
        assert rows == 20


def test_windows_are_adjacent_positions() -> None:
    positions = [
        position
        for position in taken(replace(POLICY, window=3, max_rows_per_request=1000), "a", 20, 200)
        if position >= 30
    ]

    runs = [b - a for a, b in itertools.pairwise(positions)]

    assert set(runs) == {1, 8 - 2}


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_requests_are_taken_at_the_stated_rate(rate: float) -> None:
    requests = 20_000
    policy = replace(POLICY, request_rate=rate)
    hits = sum(choice_of(policy, f"r{n}", 20) is not None for n in range(requests))

    assert abs(hits - rate * requests) <= 4 * math.sqrt(requests * rate * (1 - rate))


@given(
    seed=st.integers(0, 1000),
    rate=st.sampled_from([0.1, 0.3, 0.7]),
    stride=st.integers(1, 12),
    window=st.integers(1, 12),
)
def test_realised_inclusion_agrees_with_the_recorded_probability(
    seed: int, rate: float, stride: int, window: int
) -> None:
    policy = CapturePolicy(
        request_rate=rate, decode_stride=stride, window=min(window, stride), skip_first=0, seed=seed
    )
    requests, prompt, position = 2000, 12, 12 + stride // 2
    choices = [choice_of(policy, f"r{n}", prompt) for n in range(requests)]
    hits = sum(one is not None and sampling.next_position(one, position) == position for one in choices)
    recorded = {sampling.probability_of(one, position) for one in choices if one is not None}

    [probability] = recorded
    deviation = math.sqrt(requests * probability * (1 - probability))
    assert abs(hits - requests * probability) <= 6 * deviation


def test_offsets_do_not_depend_on_whether_the_rate_is_low() -> None:
    stride = 8
    policy = replace(POLICY, request_rate=0.1)
    choices = [choice_of(policy, f"r{n}", 20) for n in range(40_000)]
    offsets = [choice.offset % stride for choice in choices if choice is not None]

    expected = len(offsets) / stride
    assert all(abs(offsets.count(o) - expected) < 4 * math.sqrt(expected) for o in range(stride))


def test_another_key_takes_other_requests_independently_of_the_first() -> None:
    ids = [f"r{n}" for n in range(20_000)]
    first, second = (
        [sampling.draw(key, 0, one).randomness / RANDOMNESS_END for one in ids]
        for key in (KEY, key_of(b"another secret of thirty-two bytes"))
    )

    assert abs(statistics.correlation(first, second)) < 4 / math.sqrt(len(ids))


def test_another_seed_takes_other_requests() -> None:
    policy = replace(POLICY, request_rate=0.3)
    first = {n for n in range(1000) if choice_of(policy, f"r{n}", 9)}
    second = {n for n in range(1000) if choice_of(replace(policy, seed=1), f"r{n}", 9)}

    assert len(first & second) < len(first) / 2


def test_weighting_by_the_probability_is_unbiased() -> None:
    policy = replace(POLICY, request_rate=0.3, skip_first=0)
    requests, prompt, tokens = 6000, 12, 80
    # The estimate of the number of eligible positions, whose truth is known.
    estimates = []
    for number in range(requests):
        choice = choice_of(policy, f"r{number}", prompt)
        positions = taken(policy, f"r{number}", prompt, tokens)
        estimates.append(
            sum(1 / sampling.probability_of(choice, position) for position in positions) if choice else 0.0
        )
    truth = (tokens - prompt) + policy.prompt_window

    mean = sum(estimates) / requests
    deviation = math.sqrt(sum((one - mean) ** 2 for one in estimates) / requests)
    assert abs(mean - truth) < 3 * deviation / math.sqrt(requests)


def test_a_row_tells_why_it_was_taken() -> None:
    choice = certain_choice(POLICY, "a", 20)

    assert sampling.reason_of(choice, 19) == "prompt_end"
    assert sampling.reason_of(choice, 20) == "decode"
    assert sampling.probability_of(choice, 19) == 1.0
    assert sampling.probability_of(choice, 20) == 0.25
