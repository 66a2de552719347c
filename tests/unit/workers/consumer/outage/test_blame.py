"""An outage costs an entry nothing, unless it was alone with a decoder that had just proved itself."""

from hypothesis import given
from hypothesis import strategies as st

from workers.consumer.outage import blame

COUNTS = st.dictionaries(st.binary(min_size=1, max_size=8), st.integers(1, 100), max_size=16)


@given(COUNTS)
def test_nobody_blamed_loses_a_delivery_and_each_is_alone_next_time(deliveries: dict[bytes, int]) -> None:
    after = blame.after_outage(deliveries, set())

    assert after.keys() == deliveries.keys()
    assert all(after[id_] < count for id_, count in deliveries.items())
    assert all(blame.is_alone_next_time(count) for count in after.values())


@given(st.integers(1, 100))
def test_any_number_of_outages_leaves_an_entry_where_it_was(outages: int) -> None:
    count = 0
    for _ in range(outages):
        count = blame.after_outage({b"1": count + 1}, set())[b"1"]

    assert count == 0


@given(st.integers(1, 100))
def test_an_outage_that_is_not_its_own_clears_an_entry(held_against_it: int) -> None:
    assert blame.after_outage({b"1": held_against_it}, set()) == {b"1": 0}


def test_an_entry_that_breaks_every_decoder_reaches_any_limit() -> None:
    counts = [1]
    while counts[-1] < 100:
        counts.append(blame.after_outage({b"1": counts[-1]}, {b"1"})[b"1"] + 1)

    assert counts[:4] == [1, 3, 4, 5]


def test_only_what_a_dead_worker_left_is_handed_out_together() -> None:
    assert [blame.is_alone_next_time(deliveries) for deliveries in range(4)] == [True, False, True, True]
