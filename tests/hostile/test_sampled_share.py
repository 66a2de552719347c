"""Whatever a client chooses, the share of his requests that is sampled is the operator's.

An attacker knows all of our code and all public configuration, but not the secret. The band is that of
99% for all strategies together (each has its part of the 1%), and the plugin's random ids are seeded: the
test cannot fail by chance, and a strategy that works leaves the band by far.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator

import pytest
from scipy import stats  # type: ignore[import-untyped]  # no types upstream

from bench.request_path import Arrival, RequestPath, make_canary
from subtext_sidecar.contract.canary import Canary, canary_key, make_token, prompt_digest
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin import capture
from subtext_sidecar.plugin.sampling import request_id as ids
from subtext_sidecar.plugin.sampling import rule
from subtext_sidecar.plugin.sampling.budget import SURGE_CUT
from subtext_sidecar.plugin.sampling.canary import MAX_PER_MINUTE
from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves
from subtext_sidecar.plugin.secret import key_of

RATE = 0.1
POLICY = CapturePolicy(request_rate=RATE, skip_first=0)
REQUESTS = 3000
STEP = 50
SPLIT = EngineHalves(computes_prompts=True, writes_answers=True)

Chance = random.Random
Strategy = Callable[[Chance], Iterator[Arrival]]


def suffix(chance: Chance) -> str:
    """What vLLM's front end adds to every id."""
    return f"-{chance.getrandbits(32):08x}"


def named(chance: Chance, *client_ids: str, **options: object) -> Iterator[Arrival]:
    for one in itertools.cycle(client_ids):
        yield Arrival(f"chatcmpl-{one}{suffix(chance)}", **options)  # type: ignore[arg-type]


def honest(chance: Chance) -> Iterator[Arrival]:
    return (Arrival(f"chatcmpl-{n}{suffix(chance)}") for n in itertools.count())


def one_id(chance: Chance) -> Iterator[Arrival]:
    return named(chance, "the-same")


def ids_that_the_public_hash_spares(chance: Chance) -> Iterator[Arrival]:
    """He runs our code at a desk, without the secret, and keeps ids that it would not sample."""
    guess = key_of(b"a guess at the secret, which is wrong")
    spared = (
        one
        for one in map(str, itertools.count())
        if rule.draw(guess, POLICY.seed, one).randomness < rule.threshold(0.5)
    )
    return (Arrival(f"chatcmpl-{one}{suffix(chance)}") for one in spared)


def odd_ids(chance: Chance) -> Iterator[Arrival]:
    odd = ("9" * 5000 + "_cmpl-x", "nul\x00", "\ud800", "1_cmpl-x", "x" * 100_000, "-", "a-0-beam-1")
    return named(chance, *odd)


def never_drawn_traces(chance: Chance) -> Iterator[Arrival]:
    parent = "00-0af7651916cd43dd8400000000000000-b7ad6b7169203331-00"
    args = {"traceparent": parent, "tracestate": "ot=rv:00000000000000;th:ff"}
    return named(chance, "a", extra_args=args)


def opt_out(chance: Chance) -> Iterator[Arrival]:
    return named(chance, "a", extra_args={"subtext": "off"})


def opt_in(chance: Chance) -> Iterator[Arrival]:
    """To flood the audit, so that it has no budget for others."""
    return named(chance, "a", extra_args={"subtext": "on"})


def many_completions(chance: Chance) -> Iterator[Arrival]:
    for n in itertools.count():
        shared = suffix(chance)  # the children of n > 1 have one suffix
        yield from (Arrival(f"{child}_chatcmpl-{n}{shared}") for child in range(8))


def many_prompts(chance: Chance) -> Iterator[Arrival]:
    for n in itertools.count():
        yield from (Arrival(f"cmpl-{n}-{prompt}{suffix(chance)}") for prompt in range(16))


def every_endpoint(chance: Chance) -> Iterator[Arrival]:
    for n in itertools.count():
        for given in (f"resp_{n}_0", f"generate-tokens-{n}", f"rt-{n}", f"{n}", f"cmpl-{n}-0-beam-3"):
            yield Arrival(given + suffix(chance))


def lengths(chance: Chance) -> Iterator[Arrival]:
    for prompt in itertools.cycle((1, 2, 4, 60)):
        computed = chance.choice((0, prompt - 1))
        yield Arrival(
            f"chatcmpl-a{suffix(chance)}", prompt, computed, max_tokens=chance.choice((1, 2, 3000))
        )


def claimed_transfers(chance: Chance) -> Iterator[Arrival]:
    """On an engine that is no half of anything."""
    claims: tuple[dict[str, object], ...] = (
        {"do_remote_decode": True},
        {"do_remote_prefill": True, "remote_request_id": "p", "transfer_id": "t"},
    )
    for params in itertools.cycle(claims):
        extra = {"kv_transfer_params": dict(params)}
        yield Arrival(f"chatcmpl-a{suffix(chance)}", 4, 3, 1, extra)


def one_transfer_id(chance: Chance) -> Iterator[Arrival]:
    extra = {"kv_transfer_params": {"do_remote_prefill": True, "transfer_id": "the-same"}}
    return named(chance, "a", computed_tokens=3, extra_args=extra, is_received=True)


def chosen_transfer_ids(chance: Chance) -> Iterator[Arrival]:
    guess = key_of(b"a guess at the secret, which is wrong")
    for one in map(str, itertools.count()):
        if rule.draw(guess, POLICY.seed, one).randomness < rule.threshold(0.5):
            extra = {"kv_transfer_params": {"remote_request_id": one}}
            yield Arrival(f"chatcmpl-a{suffix(chance)}", 4, 3, extra_args=extra, is_received=True)


def few_transfer_ids_in_both_roles(chance: Chance) -> Iterator[Arrival]:
    for n in itertools.count():
        params = {"do_remote_decode": bool(n % 2), "transfer_id": str(n % 100)}
        extra = {"kv_transfer_params": params}
        yield Arrival(f"chatcmpl-a{suffix(chance)}", 4, 3, 1, extra, is_received=True)


def transfers_of_cached_prompts(chance: Chance) -> Iterator[Arrival]:
    """He sends each prompt again, so that it is cached here, and names transfers that never were."""
    for one in chosen_transfer_ids(chance):
        yield one._replace(is_received=False)


def forged_canaries(chance: Chance) -> Iterator[Arrival]:
    """He wants to be left out of every statistic."""
    guess = canary_key(b"a guess at the secret, which is wrong")
    while True:
        said = Canary(f"{chance.getrandbits(128):032x}", int(time.time()) + 60, prompt_digest([0] * 4))
        forged = make_token(guess, said, "m")
        yield Arrival(f"chatcmpl-a{suffix(chance)}", extra_args={"subtext_canary": forged})


STRATEGIES: list[tuple[Strategy, EngineHalves]] = [
    (honest, WHOLE),
    (one_id, WHOLE),
    (ids_that_the_public_hash_spares, WHOLE),
    (odd_ids, WHOLE),
    (never_drawn_traces, WHOLE),
    (opt_out, WHOLE),
    (opt_in, WHOLE),
    (many_completions, WHOLE),
    (many_prompts, WHOLE),
    (every_endpoint, WHOLE),
    (lengths, WHOLE),
    (claimed_transfers, WHOLE),
    (forged_canaries, WHOLE),
    (honest, SPLIT),
    (one_transfer_id, SPLIT),
    (chosen_transfer_ids, SPLIT),
    (few_transfer_ids_in_both_roles, SPLIT),
    (transfers_of_cached_prompts, SPLIT),
]
BAND = stats.binom.interval(1.0 - 0.01 / len(STRATEGIES), REQUESTS, RATE)


def seed_captures(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = Chance(seed)
    monkeypatch.setattr(ids, "token_hex", lambda size: chance.randbytes(size).hex())


@pytest.mark.parametrize(
    ("strategy", "halves"),
    STRATEGIES,
    ids=[f"{one.__name__}-{'split' if halves is SPLIT else 'whole'}" for one, halves in STRATEGIES],
)
def test_no_strategy_moves_the_share_that_is_sampled(
    strategy: Strategy, halves: EngineHalves, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_captures(monkeypatch, 15)
    path = RequestPath(POLICY, halves=halves)
    arrivals = strategy(Chance(1))

    for _ in range(REQUESTS // STEP):
        path.serve(itertools.islice(arrivals, STEP))

    counts = path.counts()
    assert counts["requests_seen"] + counts["requests_prefilled"] == REQUESTS
    sampled = counts["requests_sampled"] + counts["requests_prefilled_sampled"]
    assert BAND[0] <= sampled <= BAND[1]
    assert counts["unobservable_unreadable"] == 0
    if strategy in (claimed_transfers, transfers_of_cached_prompts):
        # Nothing that he writes makes a half of a request that is none.
        assert counts["requests_seen"] == counts["ignored_kv_transfer"] == REQUESTS


ROUNDS, FLOODS_EVERY, FLOOD = 400, 4, 100
BUDGETED = CapturePolicy(rows_per_second=10.0)


def share_behind_a_flood(monkeypatch: pytest.MonkeyPatch, flood: int, max_tokens: int) -> tuple[int, int]:
    """Let him send so many prompts of one token, his real one last.

    Return how often that is sampled, and of how many times.
    """
    now = 0.0
    monkeypatch.setattr(capture, "perf_counter", lambda: now)
    seed_captures(monkeypatch, 15)
    path, chance = RequestPath(BUDGETED), Chance(1)
    sampled = floods = 0
    for second in range(ROUNDS):
        now += 1.0
        path.serve(Arrival(f"chatcmpl-{n}{suffix(chance)}", 60) for n in range(10))
        if second % FLOODS_EVERY == FLOODS_EVERY - 1:
            mine = Arrival(f"chatcmpl-mine{suffix(chance)}", 60)
            before = (
                Arrival(f"cmpl-x-{n}{suffix(chance)}", 1, max_tokens=max_tokens) for n in range(flood)
            )
            # Of a prompt of one token no row is taken.
            sampled += bool(path.serve(itertools.chain(before, [mine])))
            floods += 1
    return sampled, floods


@pytest.mark.parametrize(("max_tokens", "cut"), [(1, 1.0), (3000, SURGE_CUT)])
def test_who_floods_the_step_of_his_prompt_hides_it_by_a_limited_factor_at_most(
    max_tokens: int, cut: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can want no row counts nothing, and what could want many lowers the rate by a limited factor."""
    usual, of = share_behind_a_flood(monkeypatch, 0, max_tokens)
    share = usual / of
    assert 0.2 < share < 0.6

    sampled, floods = share_behind_a_flood(monkeypatch, FLOOD, max_tokens)

    assert sampled >= stats.binom.ppf(0.005, floods, share / cut)


def test_who_reads_tokens_of_canaries_hides_no_more_than_their_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """He has every token that the operator makes, and sends each with many requests of his own."""
    seed_captures(monkeypatch, 15)
    path, started = RequestPath(POLICY), time.monotonic()
    chance = Chance(1)
    tokens = [make_canary() for _ in range(100)]

    for _ in range(REQUESTS // STEP):
        stolen = chance.choices(tokens, k=STEP)
        path.serve(
            Arrival(f"chatcmpl-a{suffix(chance)}", extra_args={"subtext_canary": one}) for one in stolen
        )

    counts = path.counts()
    # A token that grows old while the test runs is no canary's any more, on a slow machine.
    ignored = ("ignored_canary", "ignored_canary_replayed", "ignored_canary_excess")
    hidden = REQUESTS - sum(counts[one] for one in ignored)
    minutes = int((time.monotonic() - started) // 60) + 1
    assert 0 < hidden <= MAX_PER_MINUTE * minutes
    assert BAND[0] <= counts["requests_sampled"] - hidden <= BAND[1]


def test_who_sends_his_own_prompts_under_tokens_of_canaries_hides_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """He holds every canary back, so that each token is new to the engine."""
    seed_captures(monkeypatch, 15)
    path = RequestPath(POLICY)
    chance = Chance(1)

    for _ in range(REQUESTS // STEP):
        path.serve(
            Arrival(
                f"chatcmpl-a{suffix(chance)}",
                prompt_tokens=5,
                extra_args={"subtext_canary": make_canary()},
            )
            for _ in range(STEP)
        )

    counts = path.counts()
    assert counts["ignored_canary_altered"] == REQUESTS
    assert BAND[0] <= counts["requests_sampled"] <= BAND[1]


def test_who_remembers_which_transfer_ids_were_not_sampled_gains_nothing_by_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """He reads the audit itself, within the ten minutes in which an id's draw is the same."""
    seed_captures(monkeypatch, 15)
    path = RequestPath(POLICY, halves=SPLIT)
    chance = Chance(1)
    spared = []
    sampled = 0
    for one in itertools.islice(chosen_transfer_ids(chance), 1000):
        path.serve([one])
        sampled, before = path.counts()["requests_sampled"], sampled
        if sampled == before:
            spared.append(one)

    for _ in range(REQUESTS // STEP):
        path.serve(one._replace(internal_id=f"b{suffix(chance)}") for one in chance.sample(spared, STEP))

    assert 0 < sampled < 1000 - len(spared) + 1
    counts = path.counts()
    assert counts["ignored_transfer_id"] == REQUESTS
    assert BAND[0] <= counts["requests_sampled"] - sampled <= BAND[1]
