import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling import rule as sampling
from subtext_sidecar.plugin.sampling import watchlist
from subtext_sidecar.plugin.sampling.watchlist import NewRequest, RowSelection, Watchlist
from tests.support.picked import rows_of
from tests.support.secret import KEY

OPT_IN, OPT_OUT, UNIFORM = Stratum.OPT_IN, Stratum.OPT_OUT, Stratum.UNIFORM

CONTEXT = 1000
EVERY_ROW = CapturePolicy(
    decode_stride=1, window=1, prompt_window=2, skip_first=0, max_rows_per_request=1000
)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Counts(Counter[tuple[str, str]]):
    def __call__(self, stratum: str, counter: str, number: int) -> None:
        self[stratum, counter] += number

    def of(self, stratum: str) -> dict[str, int]:
        return {counter: count for (one, counter), count in self.items() if one == stratum}


def external(internal_id: str) -> str:
    """An identity that the tests can foresee."""
    return internal_id.rpartition("-")[0]


def make(policy: CapturePolicy = EVERY_ROW) -> tuple[Watchlist, Counts]:
    counts = Counts()
    return Watchlist(policy, counts, context=CONTEXT, key=KEY, mint=external), counts


def new(internal_id: str, prompt_tokens: int = 4, **extra_args: Any) -> NewRequest:
    return NewRequest(internal_id, prompt_tokens, extra_args or None)


def pick_one(
    requests: Watchlist, start: int, rows: int, drafts: int = 0, internal_id: str = "a-00000000"
) -> list[int]:
    """Run a step of one request, drafts included in ``rows``, and return the taken positions."""
    drafted = {internal_id: [0] * drafts} if drafts else {}
    return [row.position for row in rows_of(requests.pick([internal_id], [0, rows], [start], drafted, 0.0))]


def test_rows_are_mapped_in_batch_order_not_in_arrival_order() -> None:
    requests, _ = make()
    requests.add([new("a-00000000", 4), new("b-00000000", 3)], 0.0)

    picked = requests.pick(["b-00000000", "a-00000000"], [0, 3, 7], [0, 0], {}, 0.0)

    found = {
        index: (row.request_id, row.position)
        for index, row in zip(picked.indices, rows_of(picked), strict=True)
    }
    assert found == {1: ("b", 1), 2: ("b", 2), 5: ("a", 2), 6: ("a", 3)}


def test_chunks_of_one_prompt_give_each_position_once() -> None:
    requests, _ = make()
    requests.add([new("a-00000000", 10)], 0.0)

    first = requests.pick(["a-00000000"], [0, 9], [0], {}, 0.0)
    second = requests.pick(["a-00000000"], [0, 1], [9], {}, 0.0)

    assert [row.position for row in rows_of(first)] == [8]
    assert first.indices == [8]
    assert [row.position for row in rows_of(second)] == [9]
    assert second.indices == [0]


def test_positions_repeated_after_a_preemption_are_counted_and_not_taken_again() -> None:
    requests, counts = make()
    requests.add([new("a-00000000", 4)], 0.0)
    pick_one(requests, 0, 4)
    pick_one(requests, 4, 1)

    requests.add([new("a-00000000", 4)], 0.0)

    assert pick_one(requests, 0, 6) == [5]
    assert counts[UNIFORM, "requests_seen"] == 1
    assert counts[UNIFORM, "positions_repeated"] == 5


def test_each_input_of_a_session_is_a_request_with_a_prompt_of_its_own() -> None:
    requests, counts = make(replace(EVERY_ROW, prompt_window=3))
    requests.add([new("a-00000000", 4)], 0.0)
    assert pick_one(requests, 0, 4) == [1, 2, 3]
    assert pick_one(requests, 4, 1) == [4]

    # The token that was generated last is left out: the input of six tokens begins in its place.
    requests.add([new("a-00000000", 11)._replace(computed_tokens=5)], 0.0)
    assert not requests.can_skip(1)
    assert pick_one(requests, 5, 6) == [8, 9, 10]
    # An input that is shorter than what is wanted of a prompt: nothing before it is missing.
    requests.add([new("a-00000000", 12)._replace(computed_tokens=11)], 0.0)
    assert pick_one(requests, 11, 1) == [11]
    assert pick_one(requests, 12, 1) == [12]

    assert counts.of(UNIFORM) == {"requests_seen": 3, "requests_sampled": 3}


def test_each_input_of_a_session_is_drawn_by_itself() -> None:
    counts = Counts()
    captures = itertools.count()
    requests = Watchlist(
        replace(EVERY_ROW, request_rate=0.5),
        counts,
        context=CONTEXT,
        key=KEY,
        mint=lambda _: str(next(captures)),
    )

    sampled = []
    for length in range(4, 404):
        requests.add([new("a-00000000", length)._replace(computed_tokens=length - 1)], 0.0)
        sampled.append("a-00000000" in requests.watched)

    assert 150 < sum(sampled) < 250
    requests.forget(["a-00000000"])
    assert len(requests) == 0


def test_a_cached_prompt_position_is_counted_as_unobservable() -> None:
    requests, counts = make()
    requests.add([new("a-00000000", 10)], 0.0)

    assert pick_one(requests, 9, 1) == [9]
    assert counts[UNIFORM, "unobservable_prefix_cached"] == 1


def test_only_the_first_row_counts_while_drafts_are_verified() -> None:
    requests, counts = make()
    requests.add([new("a-00000000", 4)], 0.0)
    pick_one(requests, 0, 4)

    with_drafts = pick_one(requests, 4, 3, drafts=2)
    all_rejected = pick_one(requests, 5, 3, drafts=2)
    all_accepted = pick_one(requests, 8, 1)

    assert (with_drafts, all_rejected, all_accepted) == ([4], [5], [8])
    assert counts[UNIFORM, "unobservable_drafted"] == 2
    assert "unobservable_prefix_cached" not in counts.of(UNIFORM)
    assert "positions_repeated" not in counts.of(UNIFORM)


def test_a_long_answer_is_sampled_up_to_its_end_within_the_row_cap() -> None:
    requests, _ = make(replace(EVERY_ROW, max_rows_per_request=12))
    requests.add([new("a-00000000", 4)], 0.0)
    rows = pick_one(requests, 0, 4)

    for position in range(4, CONTEXT):
        rows += pick_one(requests, position, 1)

    assert len(rows) == 12
    assert rows[:7] == [2, 3, 4, 5, 6, 7, 8]
    assert rows[-1] >= CONTEXT // 50


def test_a_request_of_which_nothing_more_is_wanted_is_not_followed() -> None:
    requests, _ = make(replace(EVERY_ROW, max_rows_per_request=3))
    requests.add([new("a-00000000", 4)], 0.0)

    assert len(pick_one(requests, 0, CONTEXT)) == 3
    assert not requests.watched
    requests.forget(["a-00000000"])


def test_every_completion_and_every_prompt_is_a_request_of_its_own() -> None:
    requests, counts = make()
    ids = ["0_cmpl-a-0-00000000", "1_cmpl-a-0-00000000", "0_cmpl-a-1-11111111", "1_cmpl-a-1-11111111"]
    requests.add([new(one) for one in ids], 0.0)

    rows = rows_of(requests.pick(ids, [0, 4, 8, 12, 16], [0] * 4, {}, 0.0))

    assert [row.request_id for row in rows] == ["a"] * 8
    assert counts.of(UNIFORM) == {"requests_seen": 4, "requests_sampled": 4}


def test_prefills_of_others_do_not_make_a_long_answer_due() -> None:
    counts = Counts()
    policy = CapturePolicy(skip_first=0)
    requests = Watchlist(policy, counts, context=32_768, key=KEY, mint=external)
    requests.add([new("long-00000000", 4)], 0.0)
    pick_one(requests, 0, 4, internal_id="long-00000000")
    looks = rows = 0

    for position in range(4, 20_000):
        if position % 20 == 0:
            requests.add([new(f"r{position}-00000000", 512)], 0.0)
            requests.forget([f"r{position}-00000000"])
        if not requests.can_skip(1):
            looks += 1
            rows += len(pick_one(requests, position, 1, internal_id="long-00000000"))

    assert rows > 50
    assert looks <= 2 * rows


def test_an_identity_is_of_the_plugin_alone() -> None:
    counts = Counts()
    requests = Watchlist(EVERY_ROW, counts, context=CONTEXT, key=KEY)
    ids = ["chatcmpl-a-00000000", "chatcmpl-a-11111111"]
    requests.add([new(one) for one in ids], 0.0)

    facts = [requests.watched[one].request for one in ids]

    assert [one.request_id for one in facts] == ["a", "a"]
    assert facts[0].capture_id != facts[1].capture_id
    assert all(one.capture_id is not None and len(one.capture_id) == 32 for one in facts)


def test_a_request_that_makes_our_code_fail_is_skipped_alone() -> None:
    def mint(internal_id: str) -> str:
        if internal_id.startswith("bad"):
            raise RuntimeError("a defect of ours")
        return internal_id

    counts = Counts()
    requests = Watchlist(EVERY_ROW, counts, context=CONTEXT, key=KEY, mint=mint)
    requests.add([new("bad-00000000"), new("good-00000000")], 0.0)

    assert list(requests.watched) == ["good-00000000"]
    assert counts.of(UNIFORM) == {
        "requests_seen": 2,
        "unobservable_unreadable": 1,
        "requests_sampled": 1,
    }


@given(
    internal_ids=st.lists(st.text(st.characters(exclude_categories=()), max_size=400), max_size=5),
    extra_args=st.dictionaries(
        st.sampled_from(["subtext", "traceparent", "tracestate", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
            lambda children: (
                st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
            ),
            max_leaves=5,
        ),
    ),
)
def test_nothing_that_a_client_sends_ends_the_audit(
    internal_ids: list[str], extra_args: dict[str, Any]
) -> None:
    counts = Counts()
    policy = replace(EVERY_ROW, honour_trace=True, honour_opt_in=True, honour_opt_out=True)
    requests = Watchlist(policy, counts, context=CONTEXT, key=KEY)

    requests.add([NewRequest(one, 4, extra_args) for one in internal_ids], 0.0)
    requests.add([new("innocent-00000000", 4)], 0.0)

    assert "innocent-00000000" in requests.watched
    assert sum(count for (_, counter), count in counts.items() if counter == "unobservable_unreadable") == 0
    for watch in requests.watched.values():
        assert len(watch.request.request_id.encode()) <= 256
    requests.forget([*internal_ids, "innocent-00000000"])
    assert len(requests) == 0


def test_finished_requests_are_forgotten() -> None:
    requests, _ = make()
    requests.add([new("a-00000000", 4)], 0.0)

    requests.forget(["a-00000000", "never-seen"])

    assert len(requests) == 0
    assert requests.can_skip(1000)
    assert pick_one(requests, 0, 4) == []


def test_state_stays_bounded_when_finishes_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchlist, "MAX_KNOWN_REQUESTS", 10)
    requests, _ = make()

    requests.add((new(f"r{number}-00000000") for number in range(100)), 0.0)

    assert len(requests) == 10


def test_a_request_that_opts_in_is_taken_whatever_the_rate() -> None:
    requests, counts = make(replace(EVERY_ROW, request_rate=0.0, honour_opt_in=True))
    requests.add([new("a-00000000", subtext="on"), new("b-00000000")], 0.0)

    picked = requests.pick(["a-00000000", "b-00000000"], [0, 4, 8], [0, 0], {}, 0.0)

    assert [(row.request_id, row.stratum, row.probability) for row in rows_of(picked)] == [
        ("a", OPT_IN, 1.0)
    ] * 2
    assert counts.of(OPT_IN) == {"requests_seen": 1, "requests_sampled": 1}
    assert counts.of(UNIFORM) == {"requests_seen": 1}


def test_a_request_that_opts_out_is_seen_and_never_taken() -> None:
    requests, counts = make(replace(EVERY_ROW, honour_opt_out=True))
    requests.add([new("a-00000000", subtext="off"), new("1_chatcmpl-a-00000000", subtext="off")], 0.0)

    assert pick_one(requests, 0, 4) == []
    assert counts.of(OPT_OUT) == {"requests_seen": 2}
    assert counts.of(UNIFORM) == {}


def test_wishes_that_are_not_honoured_are_counted_and_sampled_like_all() -> None:
    requests, counts = make()
    requests.add([new("a-00000000", subtext="off")], 0.0)

    assert pick_one(requests, 0, 4) == [2, 3]
    assert counts.of(UNIFORM) == {"requests_seen": 1, "requests_sampled": 1, "opt_out_not_honoured": 1}


def test_requests_of_one_trace_are_all_taken_or_none() -> None:
    taken = set()
    for last in range(200):
        requests, counts = make(replace(EVERY_ROW, request_rate=0.5, honour_trace=True))
        state = f"ot=rv:{last * 0x01478913478913:014x}"
        requests.add(
            [new(f"r{last}-{n}-00000000", traceparent=PARENT, tracestate=state) for n in range(4)], 0.0
        )
        assert len(requests) in (0, 4)
        assert (len(requests) == 4) == (last * 0x01478913478913 >= 1 << 55)
        assert counts[UNIFORM, "requests_traced"] == 4
        taken.add(len(requests))

    assert taken == {0, 4}


def test_a_sampled_request_with_an_adapter_is_counted() -> None:
    requests, counts = make()
    requests.add([NewRequest("a-00000000", 4, None, is_adapted=True), new("b-00000000")], 0.0)

    assert counts[UNIFORM, "requests_adapted"] == 1


def test_a_new_policy_touches_only_requests_decided_later() -> None:
    requests, _ = make()
    requests.add([new("a-00000000")], 0.0)

    requests.set_policy(replace(EVERY_ROW, request_rate=0.0))
    requests.add([new("b-00000000")], 0.0)

    assert requests.effective_request_rate == 0.0
    assert pick_one(requests, 0, 4) == [2, 3]
    assert pick_one(requests, 0, 4, internal_id="b-00000000") == []


def test_rows_past_the_budget_are_counted_as_sampled_and_dropped() -> None:
    requests, counts = make()
    requests.add([new(f"r{number}-00000000") for number in range(30)], 0.0)
    requests.set_policy(replace(EVERY_ROW, rows_per_second=20.0))

    picked = requests.pick(
        [f"r{number}-00000000" for number in range(30)], list(range(0, 121, 4)), [0] * 30, {}, 0.0
    )

    assert len(rows_of(picked)) == len(picked.indices) == 20
    assert counts[UNIFORM, "dropped_budget"] == counts[UNIFORM, "rows_sampled"] == 40
    # What is refused is drawn by lot, not the end of the batch.
    kept = {int(row.request_id.removeprefix("r")) for row in rows_of(picked)}
    assert min(kept) < 5
    assert max(kept) > 25


def test_a_row_of_a_long_part_is_refused_no_more_often_than_another() -> None:
    kept: Counter[str] = Counter()
    for seed in range(300):
        policy = replace(EVERY_ROW, seed=seed, prompt_window=40)
        requests, _ = make(policy)
        requests.add([new("long-00000000", 40), *(new(f"r{n}-00000000", 1) for n in range(40))], 0.0)
        requests.set_policy(replace(policy, rows_per_second=20.0))
        batch = ["long-00000000", *(f"r{n}-00000000" for n in range(40))]

        picked = requests.pick(batch, [0, *range(40, 81)], [0] * 41, {}, 0.0)

        kept.update("long" if row.request_id == "long" else "short" for row in rows_of(picked))

    assert kept["long"] + kept["short"] == 300 * 20
    assert abs(kept["long"] - 3000) < 4 * 39  # standard deviations of draws without replacement


def test_a_budget_that_comes_later_knows_the_demand() -> None:
    requests, _ = make(EVERY_ROW)
    for second in range(30):
        internal_id = f"r{second}-00000000"
        requests.add([new(internal_id, 100)], float(second))
        requests.pick([internal_id], [0, 300], [0], {}, float(second))
        requests.forget([internal_id])

    requests.set_policy(replace(EVERY_ROW, rows_per_second=20.2))

    # 202 rows a second, the last two of the prompt among them.
    assert requests.effective_request_rate == pytest.approx(0.08, rel=0.1)


def test_opt_in_cannot_take_the_whole_budget() -> None:
    policy = replace(EVERY_ROW, honour_opt_in=True)
    requests, counts = make(policy)
    ids = [f"r{number}-00000000" for number in range(200)]
    requests.add([new(one, subtext="on" if n < 100 else "") for n, one in enumerate(ids)], 0.0)
    requests.set_policy(replace(policy, rows_per_second=100.0))

    picked = requests.pick(ids, list(range(0, 801, 4)), [0] * 200, {}, 0.0)

    assert Counter(row.stratum for row in rows_of(picked)) == {OPT_IN: 50, UNIFORM: 50}
    assert counts[OPT_IN, "dropped_budget"] == counts[UNIFORM, "dropped_budget"] == 150


def test_a_request_that_waits_keeps_its_turn() -> None:
    requests, _ = make(CapturePolicy(decode_stride=8, window=2, skip_first=0))
    requests.add([new("a-00000000"), new("b-00000000")], 0.0)
    both = ["a-00000000", "b-00000000"]
    requests.pick(both, [0, 4, 8], [0, 0], {}, 0.0)

    for position in range(4, 40):
        if not requests.can_skip(1):
            requests.pick(["a-00000000"], [0, 1], [position], {}, 0.0)
    late = [
        position
        for position in range(4, 40)
        if not requests.can_skip(1) and pick_one(requests, position, 1, internal_id="b-00000000")
    ]

    choice = sampling.choose(CapturePolicy(skip_first=0), sampling.draw(KEY, 0, "b"), 4, 1.0, CONTEXT)
    assert late == [p for p in range(4, 40) if sampling.next_position(choice, p) == p]


def test_a_step_that_was_not_read_after_all_hides_nothing() -> None:
    policy = CapturePolicy(decode_stride=8, window=1, skip_first=0, prompt_window=0, seed=3)
    requests, _ = make(policy)
    requests.add([new("a-00000000")], 0.0)
    pick_one(requests, 0, 4)
    choice = sampling.choose(policy, sampling.draw(KEY, policy.seed, "a"), 4, 1.0, CONTEXT)
    first, second = (sampling.next_position(choice, p) for p in (4, 4 + 8))

    skipped = [position for position in range(4, first) if requests.can_skip(1)]
    assert not requests.can_skip(1)
    # No pick: the runner had no batch to show.
    taken = [
        p for p in range(first + 1, second + 1) if not requests.can_skip(1) and pick_one(requests, p, 1)
    ]

    assert len(skipped) == first - 4
    assert taken == [second]


@given(
    prompt=st.integers(1, 40),
    chunks=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    preempt_at=st.integers(0, 29),
    seed=st.integers(0, 50),
)
def test_chunking_and_preemption_change_nothing_about_what_is_taken(
    prompt: int, chunks: list[int], preempt_at: int, seed: int
) -> None:
    policy = CapturePolicy(
        decode_stride=5, window=2, prompt_window=3, skip_first=4, max_rows_per_request=40, seed=seed
    )
    whole, _ = make(policy)
    parts, _ = make(policy)
    total = sum(chunks)
    for one in (whole, parts):
        one.add([new("a-00000000", prompt)], 0.0)

    expected = pick_one(whole, 0, total)
    rows: list[int] = []
    position = 0
    for number, chunk in enumerate(chunks):
        rows += pick_one(parts, position, chunk)
        position += chunk
        if number == preempt_at:
            rows += pick_one(parts, 0, position)

    assert rows == expected


def test_a_request_that_is_preempted_twice_and_gets_its_cache_back_is_not_missed() -> None:
    policy = CapturePolicy(decode_stride=3, window=1, skip_first=0, prompt_window=0, seed=4)
    requests, _ = make(policy)
    requests.add([new("r0-00000000", 1)], 0.0)
    # Two steps to position 3 that need no look, then from the start again, then back where it was.
    steps = [(0, 1), (1, 2), (0, 1), (3, 1)]

    taken = [
        position
        for start, rows in steps
        if not requests.can_skip(rows)
        for position in pick_one(requests, start, rows, internal_id="r0-00000000")
    ]

    choice = sampling.choose(policy, sampling.draw(KEY, policy.seed, "r0"), 1, 1.0, CONTEXT)
    assert sampling.next_position(choice, 0) == 3
    assert taken == [3]


def test_what_an_unread_step_may_have_reached_is_remembered() -> None:
    policy = CapturePolicy(decode_stride=3, window=1, skip_first=0, prompt_window=0, seed=4)
    requests, _ = make(policy)
    requests.add([new("r0-00000000", 1)], 0.0)

    assert requests.can_skip(1)  # position 0
    assert requests.can_skip(2)
    assert not requests.can_skip(3)  # 3 to 5, unread; then preempted
    taken = [
        position
        for start in (0, 3, 6)  # again from the start, from the middle, and from where it was
        if not requests.can_skip(1)
        for position in pick_one(requests, start, 1, internal_id="r0-00000000")
    ]

    assert taken == [3, 6]


class Engine:
    """Schedules one batch a step with chunks, preemption, cache hits and drafts, as vLLM may."""

    def __init__(self, data: st.DataObject, prompts: list[int]) -> None:
        self.data = data
        self.prompts = prompts
        self.computed = [0] * len(prompts)
        self.reached = [0] * len(prompts)
        self.is_running = [False] * len(prompts)

    def step(self) -> tuple[list[int], dict[int, tuple[int, int, int]]]:
        """Return the ids that start, and each scheduled request's (start, rows, drafts)."""
        scheduled = {}
        for number, prompt in enumerate(self.prompts):
            if self.is_running[number] and self.data.draw(st.integers(0, 9)) == 0:
                self.is_running[number] = False  # preempted: nothing of it is left
            if self.data.draw(st.integers(0, 4)) == 0:
                continue  # waits
            if not self.is_running[number]:
                # A prompt can be cached by others up to its last token, generated text by itself.
                most = max(prompt - 1, self.reached[number])
                self.computed[number] = self.data.draw(st.integers(0, most))
                self.is_running[number] = True
            scheduled[number] = self._rows(number, prompt)
        started = [number for number in scheduled if not self.reached[number]]
        for number, (start, rows, drafts) in scheduled.items():
            accepted = self.data.draw(st.integers(0, drafts))
            self.computed[number] = start + rows - drafts + accepted
            self.reached[number] = max(self.reached[number], self.computed[number])
        return started, scheduled

    def _rows(self, number: int, prompt: int) -> tuple[int, int, int]:
        start = self.computed[number]
        known = max(prompt, self.reached[number] + 1)  # tokens that exist
        if start + 1 < known:
            return start, self.data.draw(st.integers(1, known - start)), 0
        drafts = self.data.draw(st.integers(0, 3))
        return start, 1 + drafts, drafts


@given(
    data=st.data(),
    prompts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    stride=st.integers(1, 20),
    prompt_window=st.integers(0, 3),
    cap=st.integers(4, 30),
)
def test_a_skipped_step_never_holds_a_wanted_position(
    data: st.DataObject, prompts: list[int], stride: int, prompt_window: int, cap: int
) -> None:
    policy = CapturePolicy(
        decode_stride=stride,
        window=data.draw(st.integers(1, min(stride, 4))),
        prompt_window=prompt_window,
        skip_first=data.draw(st.integers(0, 12)),
        max_rows_per_request=cap,
    )
    requests, counts = make(policy)
    engine = Engine(data, prompts)
    ids = [f"r{number}-00000000" for number in range(len(prompts))]
    choices = [
        sampling.choose(policy, sampling.draw(KEY, 0, f"r{number}"), prompt, 1.0, CONTEXT)
        for number, prompt in enumerate(prompts)
    ]
    behind = [0] * len(prompts)  # positions before it were taken or passed over
    missed = 0

    for _ in range(20):
        started, scheduled = engine.step()
        requests.add([new(ids[number], prompts[number]) for number in started], 0.0)
        if not scheduled:
            continue
        wanted, before = set(), list(behind)
        for number, (start, rows, drafts) in scheduled.items():
            choice, stop = choices[number], start + rows if not drafts else start + 1
            is_wanted = {p: sampling.next_position(choice, p) == p for p in range(behind[number], stop)}
            wanted |= {(f"r{number}", p) for p in is_wanted if is_wanted[p] and p >= start}
            missed += sum(is_wanted[p] for p in is_wanted if p < start)
            behind[number] = max(behind[number], stop)
        order = data.draw(st.permutations(list(scheduled)))
        row_starts = [0, *itertools.accumulate(scheduled[number][1] for number in order)]
        drafted = {ids[number]: [0] for number in order if scheduled[number][2]}
        first_positions = [scheduled[number][0] for number in order]

        longest = max(rows for _, rows, _ in scheduled.values())
        is_plain = longest == 1 and data.draw(st.booleans())
        if requests.can_skip(1 + max(drafts for _, _, drafts in scheduled.values())):
            found = RowSelection([], [])
        elif data.draw(st.integers(0, 15)) == 0:
            behind = before  # to be read, and then there was nothing to read
            continue
        else:
            found = requests.pick(
                [ids[number] for number in order],
                None if is_plain else row_starts,
                first_positions,
                drafted,
                0.0,
            )

        assert {(row.request_id, row.position) for row in rows_of(found)} == wanted
        assert len(rows_of(found)) == len(wanted)
    counted = counts[UNIFORM, "unobservable_prefix_cached"] + counts[UNIFORM, "unobservable_drafted"]
    assert counted <= missed


@pytest.mark.parametrize(
    ("is_token", "expected"),
    [
        (None, {8, 9}),
        ([True] * 10, set()),
        ([True] * 9 + [False], {9}),
        ([False, *[True] * 9], set()),  # not wanted
        ([True] * 9, {9}),
        ([], {8, 9}),
    ],
)
def test_wanted_positions_that_were_fed_with_embeddings_are_known_to_have_no_token(
    is_token: list[bool] | None, expected: set[int]
) -> None:
    requests, _ = make()
    requests.add([NewRequest("a-00000000", 10, embedded=10, is_token=is_token)], 0.0)

    assert requests.watched["a-00000000"].embedded == expected
    assert pick_one(requests, 0, 11) == [8, 9, 10]
