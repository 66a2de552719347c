import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from subtext_sidecar.contract.canary import Canary, canary_key, make_token, prompt_digest
from subtext_sidecar.contract.counters import PluginCounter, Stratum
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling.canary import (
    CANARY,
    MAX_ANSWER_TOKENS,
    MAX_PER_MINUTE,
    MAX_PROMPT_TOKENS,
    CanaryGate,
)
from subtext_sidecar.plugin.sampling.request_args import NOTHING_SAID, RequestArgs
from subtext_sidecar.plugin.sampling.watchlist import NewRequest, Watchlist
from tests.support.picked import rows_of
from tests.support.secret import KEY, SECRET

CANARY_KEY = canary_key(SECRET)
NEVER_DRAWN = CapturePolicy(
    request_rate=0.0, decode_stride=1, window=1, prompt_window=2, skip_first=0, max_rows_per_request=100
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Counts(Counter[tuple[str, str]]):
    def __call__(self, stratum: str, counter: str, number: int) -> None:
        self[stratum, counter] += number


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> CanaryGate:
    return CanaryGate(CANARY_KEY, "m", clock)


NONCES: Iterator[str] = (f"{number:032x}" for number in itertools.count())


PROMPT = (7, 5, 7, 5)


def token(clock: Clock, nonce: str | None = None, seconds: int = 60, prompt: Sequence[int] = PROMPT) -> str:
    said = Canary(nonce or next(NONCES), int(clock.now) + seconds, prompt_digest(prompt))
    return make_token(CANARY_KEY, said, "m")


def judged(
    gate: CanaryGate, said: object, prompt: Sequence[int] | None = PROMPT, max_tokens: int | None = 8
) -> RequestArgs:
    return gate.judge(NOTHING_SAID, said, prompt, max_tokens)


def test_a_canary_is_a_stratum_of_its_own_and_carries_its_nonce(gate: CanaryGate, clock: Clock) -> None:
    assert judged(gate, token(clock, "ab" * 16)) == RequestArgs(Stratum.CANARY, None, (), "ab" * 16)


def test_what_is_no_canary_keeps_what_its_client_said(gate: CanaryGate) -> None:
    said = RequestArgs(Stratum.OPT_IN, 5, (PluginCounter.REQUESTS_TRACED,))

    assert gate.judge(said, "forged", PROMPT, 8) == said._replace(
        counters=(PluginCounter.REQUESTS_TRACED, PluginCounter.IGNORED_CANARY)
    )


def test_a_token_is_good_once_even_for_the_completions_of_one_request(
    gate: CanaryGate, clock: Clock
) -> None:
    one = token(clock)

    assert [judged(gate, one).stratum for _ in range(3)] == [
        Stratum.CANARY,
        Stratum.UNIFORM,
        Stratum.UNIFORM,
    ]
    assert judged(gate, one).counters == ("ignored_canary_replayed",)


def test_a_token_stays_used_until_it_ends(gate: CanaryGate, clock: Clock) -> None:
    one = token(clock, seconds=300)
    judged(gate, one)

    clock.now += 299
    assert judged(gate, one).counters == ("ignored_canary_replayed",)
    clock.now += 1
    assert judged(gate, one).counters == ("ignored_canary",)


def test_only_so_many_are_let_in_a_minute(gate: CanaryGate, clock: Clock) -> None:
    assert {judged(gate, token(clock)).stratum for _ in range(MAX_PER_MINUTE)} == {Stratum.CANARY}
    assert judged(gate, token(clock)).counters == ("ignored_canary_excess",)

    clock.now += 59.9
    assert judged(gate, token(clock)).counters == ("ignored_canary_excess",)
    clock.now += 0.2
    assert judged(gate, token(clock)).stratum == Stratum.CANARY


def test_a_clock_that_was_set_back_keeps_no_canary_out(gate: CanaryGate, clock: Clock) -> None:
    for _ in range(MAX_PER_MINUTE):
        judged(gate, token(clock))
    clock.now -= 86_400

    assert judged(gate, token(clock)).stratum == Stratum.CANARY


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens"),
    [(MAX_PROMPT_TOKENS + 1, 1), (1, MAX_ANSWER_TOKENS + 1), (1, None)],
)
def test_a_long_request_is_no_canary(
    gate: CanaryGate, clock: Clock, prompt_tokens: int, max_tokens: int | None
) -> None:
    longest = (3,) * MAX_PROMPT_TOKENS
    one = token(clock, prompt=longest)

    assert judged(gate, one, (3,) * prompt_tokens, max_tokens).counters == ("ignored_canary_excess",)
    assert judged(gate, one, longest, MAX_ANSWER_TOKENS).stratum == Stratum.CANARY


@pytest.mark.parametrize("prompt", [(7, 5, 7), (7, 5, 7, 6), (), None])
def test_a_token_is_good_for_its_own_prompt_alone_and_stays_so(
    gate: CanaryGate, clock: Clock, prompt: Sequence[int] | None
) -> None:
    one = token(clock)

    assert judged(gate, one, prompt).counters == ("ignored_canary_altered",)
    assert judged(gate, one).stratum == Stratum.CANARY
    assert judged(gate, one, prompt).counters == ("ignored_canary_replayed",)


def new(internal_id: str, **extra_args: Any) -> NewRequest:
    return NewRequest(internal_id, 4, extra_args or None, max_tokens=8, prompt=PROMPT)


def watchlist(gate: CanaryGate | None, policy: CapturePolicy = NEVER_DRAWN) -> tuple[Watchlist, Counts]:
    counts = Counts()
    return Watchlist(policy, counts, context=100, key=KEY, canaries=gate), counts


def test_a_canary_is_taken_where_nothing_else_is(gate: CanaryGate, clock: Clock) -> None:
    requests, counts = watchlist(gate)

    requests.add([new("a-00000000", **{CANARY: token(clock, "ab" * 16)}), new("b-00000000")], 0.0)
    picked = requests.pick(["a-00000000", "b-00000000"], [0, 4, 8], [0, 0], {}, 0.0)

    assert [row.position for row in rows_of(picked)] == [2, 3]
    assert {(watch.request.stratum, watch.request.canary) for watch, _ in picked.wanted} == {
        (Stratum.CANARY, "ab" * 16)
    }
    assert counts == {
        (Stratum.CANARY, "requests_seen"): 1,
        (Stratum.CANARY, "requests_sampled"): 1,
        (Stratum.UNIFORM, "requests_seen"): 1,
    }


@pytest.mark.parametrize("with_gate", [True, False])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_forged_canary_is_drawn_and_counted_like_any_other(
    gate: CanaryGate,
    with_gate: bool,  # noqa: FBT001
    rate: float,
) -> None:
    requests, counts = watchlist(gate if with_gate else None, replace(NEVER_DRAWN, request_rate=rate))

    requests.add([new("a-00000000", **{CANARY: "1800000060." + "0" * 32 + "." + "0" * 64})], 0.0)

    assert len(requests) == rate
    assert counts[Stratum.UNIFORM, "ignored_canary"] == 1
    assert counts[Stratum.UNIFORM, "requests_seen"] == 1
    assert not any(stratum == Stratum.CANARY for stratum, _ in counts)


def test_a_wish_counts_nothing_on_a_canary(gate: CanaryGate, clock: Clock) -> None:
    requests, counts = watchlist(gate, replace(NEVER_DRAWN, honour_opt_out=True))

    requests.add([new("a-00000000", subtext="off", **{CANARY: token(clock)})], 0.0)

    assert len(requests) == 1
    assert counts == {(Stratum.CANARY, "requests_seen"): 1, (Stratum.CANARY, "requests_sampled"): 1}


def test_no_budget_refuses_a_canary_and_none_is_spent_on_it(gate: CanaryGate, clock: Clock) -> None:
    policy = replace(
        NEVER_DRAWN, request_rate=1.0, rows_per_second=1.0, honour_opt_in=True, prompt_window=4
    )
    requests, counts = watchlist(gate, policy)
    names = [f"{number}-00000000" for number in range(202)]

    requests.add(
        [
            *(new(name, **{CANARY: token(clock)}) for name in names[:2]),
            *(new(name, subtext="on") for name in names[2:102]),
            *(new(name) for name in names[102:]),
        ],
        0.0,
    )
    picked = requests.pick(names, [4 * number for number in range(203)], [0] * 202, {}, 0.0)

    taken = Counter(watch.stratum for watch, _ in picked.wanted)
    assert taken[Stratum.CANARY] == 8
    assert counts[Stratum.CANARY, "dropped_budget"] == 0
    for stratum in (Stratum.OPT_IN, Stratum.UNIFORM):
        wanted = 4 * counts[stratum, "requests_sampled"]
        assert taken[stratum] + counts[stratum, "dropped_budget"] == wanted
        assert counts[stratum, "dropped_budget"] > 0
    assert sorted(picked.indices) == picked.indices
