"""Every row that came into a hop came out of it, is on its way, or makes the hop unbalanced."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from service.coverage.balance import ModelBalance, PlaceBalance, balances
from service.coverage.count import Count

START = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)
HOPS = ("plugin", "socket", "sidecar", "stream", "worker")


def count(
    hop: str, counter: str, value: int, *, settled: int | None = None, stratum: str = "uniform"
) -> Count:
    return Count(START, hop, "tiny", stratum, counter, value, value if settled is None else settled)


def balance(*counts: Count) -> ModelBalance:
    [found] = balances(counts, {"tiny": START})
    return found


def hop(balanced: ModelBalance, name: str, stratum: str | None = None) -> PlaceBalance:
    hops = balanced.places
    if stratum is not None:
        [hops] = [found.places for found in balanced.strata if found.stratum == stratum]
    return next(found for found in hops if found.place == name)


def whole(stratum: str) -> list[Count]:
    """The way of 100 rows, with something lost everywhere."""
    sums = {
        ("plugin", "rows_sampled"): 100,
        ("plugin", "rows_handed_over"): 90,
        ("plugin", "dropped_queue_full"): 7,
        ("plugin", "dropped_error"): 3,
        ("sidecar", "rows_received"): 90,
        ("sidecar", "thinned"): 20,
        ("sidecar", "dropped_buffer_full"): 10,
        ("sidecar", "rows_shipped"): 60,
        ("worker", "rows_consumed"): 60,
        ("worker", "rows_redelivered"): 4,
        ("worker", "rows_decoded"): 55,
        ("worker", "rows_duplicate"): 3,
        ("worker", "dead_lettered_not_finite"): 2,
    }
    return [count(hop, counter, value, stratum=stratum) for (hop, counter), value in sums.items()]


def test_losses_that_are_counted_leave_every_hop_balanced_in_every_stratum() -> None:
    found = balance(*whole("uniform"), *whole("opt_in"))

    assert found.balanced
    assert [stratum.stratum for stratum in found.strata] == ["opt_in", "uniform"]
    for hops in (found.places, *(stratum.places for stratum in found.strata)):
        assert tuple(each.place for each in hops) == HOPS
        assert [(each.difference, each.in_flight) for each in hops] == [(0, 0)] * len(HOPS)
    assert hop(found, "sidecar").rows_out == {"dropped_buffer_full": 20, "rows_shipped": 120, "thinned": 40}


def test_a_row_that_nobody_counted_out_is_a_difference_once_its_minute_is_settled() -> None:
    sent = [count("plugin", "rows_handed_over", 10), count("plugin", "rows_sampled", 10)]

    lost = balance(*sent, count("sidecar", "rows_received", 8))
    waiting = balance(
        count("plugin", "rows_sampled", 10, settled=0),
        count("plugin", "rows_handed_over", 10, settled=0),
        count("sidecar", "rows_received", 8, settled=0),
    )

    assert (hop(lost, "socket").difference, hop(lost, "socket").in_flight) == (2, 0)
    assert not lost.balanced
    assert (hop(waiting, "socket").difference, hop(waiting, "socket").in_flight) == (0, 2)


def test_more_out_than_in_is_a_negative_difference() -> None:
    found = balance(
        count("plugin", "rows_handed_over", 4), count("sidecar", "rows_received", 5, stratum="uniform")
    )

    assert hop(found, "socket").difference == -1
    assert not found.balanced


def test_trimmed_rows_leave_their_stratum_unattributed_and_the_total_balanced() -> None:
    found = balance(
        count("sidecar", "rows_shipped", 10),
        count("sidecar", "rows_shipped", 6, stratum="opt_in"),
        # Trimmed later than captured: in a minute that is not settled yet.
        count("sidecar", "dropped_trimmed", 5, settled=0, stratum="unknown"),
        count("worker", "rows_trimmed_but_read", 1, settled=0, stratum="unknown"),
        count("worker", "rows_consumed", 7),
        count("worker", "rows_consumed", 5, stratum="opt_in"),
    )

    total = hop(found, "stream")
    assert (total.difference, total.in_flight) == (0, 0)
    assert hop(found, "stream", "uniform").unattributed == 3
    assert hop(found, "stream", "opt_in").unattributed == 1
    assert hop(found, "stream", "unknown").unattributed == -4
    assert all(each.places[3].balanced for each in found.strata)


def test_trims_explain_the_oldest_rows_and_leave_the_newest_in_flight() -> None:
    found = balance(
        count("sidecar", "rows_shipped", 30, settled=10),
        count("sidecar", "dropped_trimmed", 5, settled=0, stratum="unknown"),
        count("worker", "rows_consumed", 5),
    )

    assert (hop(found, "stream").difference, hop(found, "stream").in_flight) == (0, 20)


def test_trims_cannot_hide_more_than_was_trimmed() -> None:
    found = balance(
        count("sidecar", "rows_shipped", 10),
        count("sidecar", "dropped_trimmed", 3, stratum="unknown"),
        count("worker", "rows_consumed", 5),
    )

    assert hop(found, "stream").difference == 2
    assert hop(found, "stream", "uniform").difference == 2


Parts = st.lists(st.integers(0, 50), min_size=4, max_size=4)


@given(Parts, Parts)
def test_in_less_out_is_always_told_in_full(incoming: list[int], outgoing: list[int]) -> None:
    strata = ("uniform", "opt_in", "opt_out", "unknown")
    counts = [
        count(hop, counter, value, settled=value // 2 if value % 3 else value, stratum=stratum)
        for hop, counter, values in (
            ("sidecar", "rows_shipped", incoming),
            ("worker", "rows_consumed", outgoing),
        )
        for stratum, value in zip(strata, values, strict=True)
    ]

    found = balance(*counts)

    for each in (hop(found, "stream"), *(hop(found, "stream", stratum) for stratum in strata)):
        rest = each.difference + each.in_flight + each.unattributed
        assert sum(each.rows_in.values()) - sum(each.rows_out.values()) == rest
        assert each.balanced == (each.difference == 0)
    assert hop(found, "stream").unattributed == 0
