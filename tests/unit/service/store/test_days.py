"""Conditions by which a few partitions are looked into: they leave out no time that they are made for."""

import datetime as dt
import re

from sqlalchemy import DateTime, column, select, true

from service.store import days

NOON = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def spans_of(times: list[dt.datetime]) -> list[tuple[str, str]]:
    spans = days.spans_of(times)
    query = select(true()).where(days.within(column("at", DateTime), len(spans))).params(spans)
    sql = str(query.compile(compile_kwargs={"literal_binds": True}))
    return re.findall(r">= '([^']*)' AND at <= '([^']*)'", sql)


def test_times_no_more_than_a_day_apart_are_one_span_and_others_have_their_own() -> None:
    last = NOON + 4 * DAY

    found = spans_of([last, NOON + DAY, NOON, NOON + DAY / 2])

    assert found == [(str(NOON), str(NOON + DAY)), (str(last), str(last))]


def test_of_no_times_nothing_is_looked_for() -> None:
    assert spans_of([]) == []
    assert str(days.within(column("at", DateTime), 0)) == "false"


def test_what_is_near_some_times_is_a_day_around_each_in_spans_of_their_own() -> None:
    last = NOON + 4 * DAY

    found = days.spans_near([last, NOON, NOON + 2 * DAY], "near_")

    assert found == {"near_0": NOON - DAY, "near_1": last + DAY}
    assert str(days.within(column("at", DateTime), 2, "near_")) == "at >= :near_0 AND at <= :near_1"
