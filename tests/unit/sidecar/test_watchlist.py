from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.plugin import watchlist
from subtext_sidecar.plugin.sampling import Policy
from subtext_sidecar.plugin.watchlist import NewRequest, Watchlist

EVERY_ROW = Policy(
    request_rate=1.0,
    decode_stride=1,
    window=1,
    prompt_window=2,
    skip_first=0,
    max_rows_per_request=1000,
    seed=0,
)


def make(policy: Policy = EVERY_ROW) -> tuple[Watchlist, Counter[str]]:
    counts: Counter[str] = Counter()

    def count(counter: str, number: int) -> None:
        counts[counter] += number

    return Watchlist(policy, count), counts


def test_rows_are_mapped_in_batch_order_not_in_arrival_order() -> None:
    requests, _ = make()
    requests.add([NewRequest("a-00000000", 4), NewRequest("b-00000000", 3)])

    picked = requests.pick(["b-00000000", "a-00000000"], [0, 3, 7], [0, 0])

    assert picked.indices == [1, 2, 5, 6]
    assert [(row.request_id, row.position) for row in picked.rows] == [
        ("b", 1),
        ("b", 2),
        ("a", 2),
        ("a", 3),
    ]


def test_chunks_of_one_prompt_give_each_position_once() -> None:
    requests, _ = make()
    requests.add([NewRequest("a-00000000", 10)])

    first = requests.pick(["a-00000000"], [0, 9], [0])
    second = requests.pick(["a-00000000"], [0, 1], [9])

    assert [row.position for row in first.rows] == [8]
    assert first.indices == [8]
    assert [row.position for row in second.rows] == [9]
    assert second.indices == [0]


def test_positions_repeated_after_a_preemption_are_not_taken_again() -> None:
    requests, counts = make()
    requests.add([NewRequest("a-00000000", 4)])
    requests.pick(["a-00000000"], [0, 4], [0])
    requests.pick(["a-00000000"], [0, 1], [4])

    requests.add([NewRequest("a-00000000", 4)])
    repeated = requests.pick(["a-00000000"], [0, 6], [0])

    assert [row.position for row in repeated.rows] == [5]
    assert counts["requests_seen"] == 1


def test_a_cached_prompt_position_is_counted_as_unobservable() -> None:
    requests, counts = make()
    requests.add([NewRequest("a-00000000", 10)])

    picked = requests.pick(["a-00000000"], [0, 1], [9])

    assert [row.position for row in picked.rows] == [9]
    assert counts["unobservable_prefix_cached"] == 1


def test_only_the_first_row_counts_while_drafts_are_verified() -> None:
    requests, _ = make()
    requests.add([NewRequest("a-00000000", 4)])
    requests.pick(["a-00000000"], [0, 4], [0])

    drafted = requests.pick(["a-00000000"], [0, 3], [4], {"a-00000000": [1, 2]})
    after = requests.pick(["a-00000000"], [0, 1], [5])

    assert [row.position for row in drafted.rows] == [4]
    assert [row.position for row in after.rows] == [5]


def test_tokens_past_the_row_cap_are_counted_once() -> None:
    requests, counts = make(EVERY_ROW._replace(max_rows_per_request=3))
    requests.add([NewRequest("a-00000000", 4)])
    requests.pick(["a-00000000"], [0, 4], [0])
    rows = [requests.pick(["a-00000000"], [0, 1], [position]).rows for position in range(4, 10)]
    requests.pick(["a-00000000"], [0, 10], [0])

    assert [len(one) for one in rows] == [1, 0, 0, 0, 0, 0]
    assert counts["unobservable_past_row_cap"] == 5


def test_only_the_first_parallel_sample_is_observed() -> None:
    requests, counts = make()
    requests.add([NewRequest("0_chatcmpl-a-00000000", 4), NewRequest("1_chatcmpl-a-00000001", 4)])

    assert len(requests) == 1
    assert counts == {"requests_seen": 2, "requests_sampled": 1, "unobservable_parallel_sample": 1}


def test_finished_requests_are_forgotten() -> None:
    requests, _ = make()
    requests.add([NewRequest("a-00000000", 4)])

    requests.forget(["a-00000000", "never-seen"])

    assert len(requests) == 0
    assert not requests.pick(["a-00000000"], [0, 4], [0]).rows


def test_state_stays_bounded_when_finishes_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchlist, "MAX_KNOWN_REQUESTS", 10)
    requests, _ = make()

    requests.add(NewRequest(f"r{number}-00000000", 4) for number in range(100))

    assert len(requests) == 10


@given(
    prompt=st.integers(1, 40),
    chunks=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    preempt_at=st.integers(0, 29),
    seed=st.integers(0, 50),
)
def test_chunking_and_preemption_change_nothing_about_what_is_taken(
    prompt: int, chunks: list[int], preempt_at: int, seed: int
) -> None:
    policy = Policy(1.0, 5, 2, 3, 4, 40, seed)
    whole, _ = make(policy)
    parts, _ = make(policy)
    total = sum(chunks)
    for one in (whole, parts):
        one.add([NewRequest("a-00000000", prompt)])

    expected = whole.pick(["a-00000000"], [0, total], [0]).rows
    rows, position = [], 0
    for number, chunk in enumerate(chunks):
        rows += parts.pick(["a-00000000"], [0, chunk], [position]).rows
        position += chunk
        if number == preempt_at:
            rows += parts.pick(["a-00000000"], [0, position], [0]).rows

    assert rows == expected
