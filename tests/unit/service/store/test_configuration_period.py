"""What a report does to what is known of its source, as plain values."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from service.store.configuration.period import HOLDS, Change, Known, change

START = dt.datetime(2026, 11, 23, 5, 0, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
KNOWN = Known(1, START + MINUTE, None)


def test_the_first_report_begins_a_period() -> None:
    assert change(None, 1, START) == Change(begins=True)


def test_the_same_version_goes_on_while_its_last_report_stands() -> None:
    later = KNOWN.last_seen_at + HOLDS

    assert change(KNOWN, 1, later) == Change(last_seen_at=later)


def test_after_a_silence_the_same_version_begins_anew_and_nothing_is_said_of_the_silence() -> None:
    assert change(KNOWN, 1, KNOWN.last_seen_at + HOLDS + MINUTE) == Change(begins=True)


def test_another_version_ends_the_one_before_where_no_report_is_missing() -> None:
    later = KNOWN.last_seen_at + MINUTE

    assert change(KNOWN, 2, later) == Change(ended_at=later, begins=True)


def test_another_version_after_a_silence_does_not_say_when_the_one_before_ended() -> None:
    assert change(KNOWN, 2, KNOWN.last_seen_at + HOLDS + MINUTE) == Change(begins=True)


def test_a_late_report_changes_nothing_whatever_it_says() -> None:
    for version in (1, 2):
        assert change(KNOWN, version, START) == Change()


def test_a_report_that_comes_once_more_changes_nothing() -> None:
    assert change(KNOWN, 1, KNOWN.last_seen_at) == Change()


def test_a_period_that_was_ended_is_not_gone_on_with() -> None:
    ended = KNOWN._replace(ended_at=KNOWN.last_seen_at)

    assert change(ended, 1, KNOWN.last_seen_at) == Change()
    assert change(ended, 1, KNOWN.last_seen_at + MINUTE) == Change(begins=True)


@given(
    version=st.integers(1, 2),
    seconds=st.integers(-600, 1200),
    ended=st.none() | st.integers(60, 120),
)
def test_periods_of_one_source_never_overlap_and_time_never_goes_back(
    version: int, seconds: int, ended: int | None
) -> None:
    known = KNOWN._replace(ended_at=None if ended is None else START + dt.timedelta(seconds=ended))
    at = START + dt.timedelta(seconds=seconds)

    done = change(known, version, at)

    if done.last_seen_at is not None:
        assert done.last_seen_at > known.last_seen_at
    if done.ended_at is not None:
        assert known.ended_at is None
        assert done.ended_at > known.last_seen_at
    if done.begins:
        assert at > (known.ended_at or known.last_seen_at)
