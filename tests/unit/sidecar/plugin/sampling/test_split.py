import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling import split
from subtext_sidecar.plugin.sampling.split import (
    EPOCH_SECONDS,
    RECEIVED_SECONDS,
    WHOLE,
    EngineHalves,
    Half,
    ReceivedPrompts,
    SharedIdentity,
)
from subtext_sidecar.plugin.sampling.watchlist import NewRequest, Watchlist
from tests.support.picked import rows_of
from tests.support.secret import KEY

POLICY = CapturePolicy(request_rate=0.2, decode_stride=4, window=1, prompt_window=2, skip_first=0)
EVERY = replace(POLICY, request_rate=1.0)
PREFILL = EngineHalves(computes_prompts=True)
DECODE = EngineHalves(writes_answers=True)
BOTH = EngineHalves(computes_prompts=True, writes_answers=True)
PROMPT = 30


class Engine:
    """The plugin's part of one engine."""

    def __init__(self, halves: EngineHalves, policy: CapturePolicy = POLICY) -> None:
        self.counts: Counter[str] = Counter()
        self.now = 1_800_000_000.0
        self.watchlist = Watchlist(
            policy, self._count, context=500, key=KEY, halves=halves, unix_time=lambda: self.now
        )

    def _count(self, stratum: str, counter: str, number: int) -> None:
        assert stratum == "uniform"
        self.counts[counter] += number

    def add(
        self,
        internal_id: str,
        params: Any,
        *,
        computed: int = 0,
        received: bool = True,
        max_tokens: int = 100,
    ) -> bool:
        """Tell whether it is sampled. What is computed was transferred unless ``received`` is false."""
        one = NewRequest(
            internal_id,
            PROMPT,
            {"kv_transfer_params": params},
            computed_tokens=computed,
            max_tokens=max_tokens,
            is_received=received and computed > 0,
        )
        self.watchlist.add([one], 0.0)
        return internal_id in self.watchlist.watched

    def run(self, internal_id: str, start: int, stop: int) -> list[int]:
        """Compute these positions in one step and return those that were taken."""
        picked = self.watchlist.pick([internal_id], [0, stop - start], [start], {}, 0.0)
        return [row.position for row in rows_of(picked)]


def to_prefill(**more: Any) -> dict[str, Any]:
    return {"do_remote_decode": True, "do_remote_prefill": False, **more}


def to_decode(prefill_id: str, **more: Any) -> dict[str, Any]:
    # The scheduler sets do_remote_prefill to false once it has the transfer under way.
    return {"do_remote_prefill": False, "do_remote_decode": False, "remote_request_id": prefill_id, **more}


def outcomes(numbers: Iterable[int], engine: Engine, **options: Any) -> list[bool]:
    return [engine.add(f"d{n}", to_decode(f"p{n}"), computed=PROMPT - 1, **options) for n in numbers]


def test_both_engines_sample_the_same_requests_by_what_nixl_tells_them() -> None:
    prefill, decode = Engine(PREFILL), Engine(DECODE)
    numbers = range(400)

    first = [prefill.add(f"p{n}", to_prefill(), max_tokens=1) for n in numbers]
    second = outcomes(numbers, decode)

    assert first == second
    assert 50 < sum(first) < 110


def test_both_engines_sample_the_same_requests_by_a_transfer_id() -> None:
    one, other = Engine(BOTH), Engine(BOTH)
    params = [{"transfer_id": f"xfer-{n}"} for n in range(400)]

    first = [one.add(f"p{n}", to_prefill(**p), max_tokens=1) for n, p in enumerate(params)]
    second = [other.add(f"d{n}", p, computed=PROMPT - 1) for n, p in enumerate(params)]

    assert first == second


def test_a_request_that_passes_two_engines_is_seen_once() -> None:
    prefill, decode = Engine(PREFILL), Engine(DECODE)
    for n in range(100):
        prefill.add(f"p{n}", to_prefill(), max_tokens=1)
    outcomes(range(100), decode)

    sampled = decode.counts["requests_sampled"]
    assert prefill.counts == {"requests_prefilled": 100, "requests_prefilled_sampled": sampled}
    assert decode.counts == {
        "requests_seen": 100,
        "requests_continued": 100,
        "requests_sampled": sampled,
    }


def test_together_two_engines_take_what_one_would_take_and_nothing_twice() -> None:
    prefill, decode = Engine(PREFILL, EVERY), Engine(DECODE, EVERY)
    prefill.add("p", to_prefill(), max_tokens=1)
    decode.add("d", to_decode("p"), computed=PROMPT - 1)

    prompt = prefill.run("p", 0, PROMPT)
    answer = decode.run("d", PROMPT - 1, 60)

    (watch,) = decode.watchlist.watched.values()
    assert prompt == [PROMPT - 2, PROMPT - 1]
    assert answer == [p for p in range(PROMPT, 60) if (p - PROMPT - watch.choice.offset) % 4 == 0]
    assert watch.request.role == "decode"
    # The prompt's rows are the other engine's: they are not missing here.
    assert "unobservable_prefix_cached" not in decode.counts
    assert not prefill.watchlist.watched


def test_an_engine_that_is_no_half_ignores_what_is_said_of_transfers_and_counts_it() -> None:
    engine = Engine(WHOLE, EVERY)
    for n, params in enumerate((to_prefill(), to_decode("p"), "p", ["p"], {"do_remote_decode": object()})):
        assert engine.add(f"r{n}", params, computed=PROMPT - 1, max_tokens=1)
    engine.add("plain", None)

    assert engine.counts == {"requests_seen": 6, "requests_sampled": 6, "ignored_kv_transfer": 5}
    assert engine.run("r0", 0, PROMPT) == [PROMPT - 2, PROMPT - 1]


@pytest.mark.parametrize(
    ("halves", "params", "computed", "max_tokens"),
    [
        (PREFILL, to_prefill(), 0, 2),  # whole answers would count as seen nowhere
        (PREFILL, to_decode("p"), PROMPT - 1, 100),
        (DECODE, to_prefill(), 0, 1),
        (DECODE, to_decode("p"), PROMPT - 2, 100),  # the prompt was not transferred, so it is read here
        (DECODE, to_decode("p"), 0, 100),
        (DECODE, {"something": "else"}, PROMPT - 1, 100),
    ],
)
def test_a_claim_that_the_engine_does_not_bear_out_is_a_request_of_this_engine(
    halves: EngineHalves, params: Any, computed: int, max_tokens: int
) -> None:
    engine = Engine(halves, EVERY)

    engine.add("r", params, computed=computed, max_tokens=max_tokens)

    assert engine.counts == {"requests_seen": 1, "requests_sampled": 1, "ignored_kv_transfer": 1}
    assert engine.watchlist.watched["r"].request.role is None


def test_a_prompt_that_lay_in_this_engines_prefix_cache_is_not_the_other_engines() -> None:
    """Its client names a transfer that never was, and knows that the prompt is here already."""
    engine = Engine(BOTH, EVERY)

    engine.add("r", to_decode("p"), computed=PROMPT - 1, received=False)

    assert engine.watchlist.watched["r"].request.role is None
    assert engine.run("r", PROMPT - 1, PROMPT) == [PROMPT - 1]
    assert engine.counts == {
        "requests_seen": 1,
        "requests_sampled": 1,
        "ignored_kv_transfer": 1,
        "unobservable_prefix_cached": 1,
    }


def test_a_received_prompt_is_taken_once_and_not_after_its_request_ended() -> None:
    received = ReceivedPrompts()
    received.note(["a", "b", "a"], 0.0)
    received.forget(["b", "c"])

    assert [received.take(one) for one in ("a", "a", "b")] == [True, False, False]


def test_received_prompts_without_room_push_out_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MAX_RECEIVED", 2)
    received = ReceivedPrompts()
    received.note("abc", 0.0)

    assert [received.take(one) for one in "abc"] == [False, True, True]


def test_prompts_of_requests_that_were_aborted_before_are_not_kept_for_ever() -> None:
    """The engine says that such a request ended, and only then that its prompt came."""
    received = ReceivedPrompts()
    for number in range(2000):
        received.forget([f"aborted{number}"])
        received.note([f"aborted{number}"], float(number))
    received.note(["aborted1999"], 2000.0)
    received.note(["waits"], 2000.0 + RECEIVED_SECONDS - 1.0)

    assert len(received) == 2
    assert received.take("waits")


def test_an_id_that_is_known_not_to_be_sampled_cannot_be_used_again() -> None:
    decode = Engine(DECODE)
    unsampled = next(n for n in itertools.count() if not outcomes([n], decode)[0])

    again = []
    for n in range(3000):
        if n % 100 == 0:
            decode.now += EPOCH_SECONDS  # so that its first use of all but a few is none
        again.append(decode.add(f"again{n}", to_decode(f"p{unsampled}"), computed=PROMPT - 1))

    assert 500 < sum(again) < 700
    assert decode.counts["ignored_transfer_id"] == 3000 - 30


def test_an_epoch_later_the_draw_of_an_id_is_another() -> None:
    shared = [SharedIdentity(lambda: now).of(Half("decode", "x")) for now in (0.0, 599.0, 600.0)]  # noqa: B023

    assert shared[0] == shared[1] != shared[2]


def test_ids_without_room_are_drawn_by_their_own_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MAX_USED_IDS", 2)
    shared = SharedIdentity(lambda: 0.0)

    assert [shared.of(Half("decode", one)) is None for one in "abc"] == [False, False, True]


@pytest.mark.parametrize("shared_id", ["", None, 5, "x" * 1_000_000, "\ud800", "nul\x00"])
def test_no_transfer_id_makes_the_draw_fail(shared_id: Any) -> None:
    engine = Engine(BOTH, EVERY)

    assert engine.add("d", {"transfer_id": shared_id, "do_remote_prefill": True}, computed=PROMPT - 1)
    assert engine.counts["requests_continued"] == 1
    assert engine.counts["ignored_transfer_id"] == (not isinstance(shared_id, str) or not shared_id)


@pytest.mark.parametrize("prompt_window", [0, 2])
def test_a_prompt_of_nothing_wanted_is_not_followed(prompt_window: int) -> None:
    engine = Engine(PREFILL, replace(EVERY, prompt_window=prompt_window))

    assert engine.add("p", to_prefill(), max_tokens=1) is (prompt_window > 0)
