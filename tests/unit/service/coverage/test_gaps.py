"""Every minute without traffic is told once, and by whether somebody was there who would have told."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from service.coverage.gaps import KEPT, Gap, GapReason, MinuteSums, Span, gaps, lives, sums_by_step, total

START = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def span(first: int, end: int) -> Span:
    return Span(START + dt.timedelta(minutes=first), START + dt.timedelta(minutes=end))


def gap(first: int, end: int, reason: GapReason) -> Gap:
    return Gap(*span(first, end), reason)


SPANS = st.lists(
    st.tuples(st.integers(-30, 150), st.integers(1, 60)).map(lambda one: span(one[0], sum(one)))
)


def test_a_process_that_counted_before_and_after_makes_a_gap_one_without_traffic() -> None:
    traffic = [span(0, 10), span(20, 30)]

    found = gaps(span(0, 60), traffic, lived=[span(0, 30)])

    assert found == [
        gap(10, 20, GapReason.NO_TRAFFIC),
        gap(30, 60, GapReason.NOBODY_REPORTED),
    ]


def test_a_silence_of_more_than_a_day_is_nobodys_word_since_its_counts_may_be_forgotten() -> None:
    day = KEPT // dt.timedelta(minutes=1)
    within, beyond = span(10 + day, 20 + day), span(21 + 2 * day, 30 + 2 * day)

    assert lives([beyond, span(0, 10), within]) == [span(0, 20 + day), beyond]


def test_a_restart_leaves_minutes_of_which_nobody_reported() -> None:
    lived = [span(-500, 10), span(14, 60)]

    found = gaps(span(0, 60), [span(0, 10), span(20, 60)], lived)

    assert found == [
        gap(10, 14, GapReason.NOBODY_REPORTED),
        gap(14, 20, GapReason.NO_TRAFFIC),
    ]


def test_without_any_count_nobody_reported_all_the_time() -> None:
    assert gaps(span(0, 60), [], []) == [gap(0, 60, GapReason.NOBODY_REPORTED)]


def test_a_gap_over_the_edge_of_a_step_counts_in_both() -> None:
    found = gaps(span(0, 90), [span(0, 55), span(70, 90)], [span(0, 90)])

    sums = sums_by_step(span(0, 90), found, [START, START + HOUR], HOUR)

    assert sums == [
        MinuteSums(total=60, with_traffic=55, no_traffic=5, nobody_reported=0),
        MinuteSums(total=30, with_traffic=20, no_traffic=10, nobody_reported=0),
    ]
    assert total(sums) == MinuteSums(total=90, with_traffic=75, no_traffic=15, nobody_reported=0)


@given(SPANS, SPANS)
def test_every_minute_is_of_traffic_or_of_one_gap(traffic: list[Span], lived: list[Span]) -> None:
    whole = span(0, 120)
    found = gaps(whole, traffic, lived)

    minutes = [START + dt.timedelta(minutes=number) for number in range(120)]
    for minute in minutes:
        of_gaps = [one.reason for one in found if one.start <= minute < one.end]
        is_traffic = any(one.start <= minute < one.end for one in traffic)
        is_alive = any(one.start <= minute < one.end for one in lived)
        reason = GapReason.NO_TRAFFIC if is_alive else GapReason.NOBODY_REPORTED
        assert of_gaps == ([] if is_traffic else [reason])
    sums = total(sums_by_step(whole, found, [START, START + HOUR], HOUR))
    assert sums.with_traffic == sum(any(t.start <= m < t.end for t in traffic) for m in minutes)
