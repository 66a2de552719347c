from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from subtext_sidecar.plugin.sampling.gap import Gap
from subtext_sidecar.plugin.sampling.split import WHOLE, EngineHalves, ReceivedPrompts
from subtext_sidecar.plugin.sampling.watchlist import MAX_KNOWN_REQUESTS


class Missed(Counter[str]):
    def __call__(self, counter: str, requests: int) -> None:
        self[counter] += requests


def make(halves: EngineHalves = WHOLE, **known: int) -> tuple[Gap, Missed, ReceivedPrompts]:
    missed, received = Missed(), ReceivedPrompts()
    return Gap(known, missed, halves=halves, received=received), missed, received


def scheduled(
    new: dict[str, int], finished: set[str] | None = None, max_tokens: int = 1, **args: Any
) -> Any:
    params = SimpleNamespace(extra_args=args or None, max_tokens=max_tokens)
    return SimpleNamespace(
        finished_req_ids=finished or set(),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=key, prompt_len=length, sampling_params=params)
            for key, length in new.items()
        ],
    )


def test_who_comes_is_counted_once_and_who_was_there_is_not() -> None:
    gap, missed, _ = make(old=3)

    gap.note(scheduled({"a": 5, "b": 6}))
    gap.note(scheduled({"a": 5, "b": 6}))  # the same step again, or preempted
    gap.note(scheduled({"old": 3}))
    gap.note(scheduled({}, {"a", "never heard of"}))
    gap.note(scheduled({"b": 9}))  # the next input of a session

    assert missed == {"unobservable_capture_off": 3}
    assert gap.known == {"old": 3, "b": 9}


def test_what_is_remembered_is_bounded() -> None:
    gap, missed, _ = make()

    gap.note(scheduled({str(number): 1 for number in range(MAX_KNOWN_REQUESTS + 5)}))

    assert missed == {"unobservable_capture_off": MAX_KNOWN_REQUESTS + 5}
    assert len(gap.known) == MAX_KNOWN_REQUESTS


TO_PREFILL = {"do_remote_decode": True}


@pytest.mark.parametrize(
    ("halves", "transfer", "max_tokens", "counter"),
    [
        (EngineHalves(computes_prompts=True), TO_PREFILL, 1, "unobservable_prefill_off"),
        # Its client says so, and would write a whole answer that counts as nothing.
        (EngineHalves(computes_prompts=True), TO_PREFILL, 2, "unobservable_capture_off"),
        (EngineHalves(computes_prompts=True), {}, 1, "unobservable_capture_off"),
        (EngineHalves(computes_prompts=True), "odd", 1, "unobservable_capture_off"),
        (EngineHalves(writes_answers=True), TO_PREFILL, 1, "unobservable_capture_off"),
        (WHOLE, TO_PREFILL, 1, "unobservable_capture_off"),
    ],
)
def test_a_request_that_passes_two_engines_is_missed_by_the_one_that_counts_it(
    halves: EngineHalves, transfer: Any, max_tokens: int, counter: str
) -> None:
    gap, missed, _ = make(halves)

    gap.note(scheduled({"a": 5}, max_tokens=max_tokens, kv_transfer_params=transfer))
    gap.note(scheduled({"a": 5}, max_tokens=max_tokens, kv_transfer_params=transfer))

    assert missed == {counter: 1}


def test_a_prompt_that_was_received_is_kept_for_who_comes_later() -> None:
    gap, _, received = make(EngineHalves(writes_answers=True))
    received.note(["came", "ended", "waits"], 0.0)

    gap.note(scheduled({"came": 3}, {"ended"}))

    assert len(received) == 1
    assert received.take("waits")
