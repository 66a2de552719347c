"""Conditions by which a few partitions are looked into: they leave out no time that they are made for."""

import datetime as dt
import re

from sqlalchemy import column

from service.store import days

NOON = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def spans_of(times: list[dt.datetime]) -> list[tuple[str, str]]:
    condition = days.among(column("at"), times)
    sql = str(condition.compile(compile_kwargs={"literal_binds": True}))
    return re.findall(r">= '([^']*)' AND at <= '([^']*)'", sql)


def test_times_no_more_than_a_day_apart_are_one_span_and_others_have_their_own() -> None:
    last = NOON + 4 * DAY

    found = spans_of([last, NOON + DAY, NOON, NOON + DAY / 2])

    assert found == [(str(NOON), str(NOON + DAY)), (str(last), str(last))]


def test_of_no_times_nothing_is_looked_for() -> None:
    assert spans_of([]) == []
    assert str(days.among(column("at"), [])) == "false"
