"""Which entries of the access log a tombstone of retention may cover."""

import datetime as dt
import uuid

from service.evidence.entry import moment
from service.evidence.tombstones import Reason, Retained, Tombstone

NOW = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def retained(
    *periods: tuple[str, int],
    objected: str | None = None,
    reason: str = Reason.RETENTION,
    begins: dt.datetime = NOW - DAY,
) -> Retained:
    made = Retained()
    for version, days in periods:
        period = {"period_days": days, "in_force_from": moment(begins)}
        made.add("retention_version", {"id": version, "records": "access_log", **period})
    made.add("retention_version", {"id": "of readings", "period_days": 1})
    if objected is not None:
        made.add("removal_decision", {"decision": "objected", "version_id": objected})
    made.bury([Tombstone("one", uuid.UUID(int=1), [(3, 5), (8, 9)], 3, reason, NOW, 20)])
    return made


def test_an_entry_may_go_when_the_shortest_period_is_over() -> None:
    made = retained(("a", 30), ("b", 200))

    assert [made.covers(place, NOW - 30 * DAY) for place in range(2, 10)] == [
        False, True, True, False, False, False, True, False,
    ]  # fmt: skip
    assert not made.covers(3, NOW - 29 * DAY)


def test_a_period_that_was_objected_to_none_and_an_erasure_let_nothing_go() -> None:
    old = NOW - 100 * DAY

    assert not retained(("a", 30), ("b", 200), objected="a").covers(3, old)
    assert not retained().covers(3, old)
    assert not retained(("a", 30), reason=Reason.ERASURE).covers(3, old)


def test_a_period_that_has_not_begun_lets_nothing_go() -> None:
    assert not retained(("a", 30), begins=NOW + DAY).covers(3, NOW - 100 * DAY)
