"""Which entries a tombstone of retention may cover, by the periods that the log has."""

import datetime as dt
import uuid
from typing import Final

import pytest

from service.evidence.entry import moment
from service.evidence.payloads import Kind
from service.evidence.tombstones import Reason, Retained, Tombstone

NOW: Final = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)
DAY: Final = dt.timedelta(days=1)
HOUR: Final = dt.timedelta(hours=1)
LONG_AGO: Final = NOW - 500 * DAY
STONE: Final = Tombstone("one", uuid.UUID(int=1), [(3, 5), (8, 9)], 3, Reason.RETENTION, NOW, 20)


class Said:
    """What the log's rows say of the access log's periods."""

    def __init__(self) -> None:
        self.retained = Retained()
        self.retained.bury([STONE])
        self._versions = 0

    def period(
        self,
        days: int | None,
        at: dt.datetime,
        begins: dt.datetime | None = None,
        records: str | None = "access_log",
    ) -> str:
        """Set one at that time, in force from then on or from a later time."""
        self._versions += 1
        version = {
            "id": str(self._versions), "period_days": days, "set_at": moment(at),
            "in_force_from": moment(begins or at),
        }  # fmt: skip
        self.retained.add(Kind.RETENTION_VERSION, version | ({"records": records} if records else {}))
        return version["id"]  # type: ignore[return-value]  # a str

    def decision(self, decision: str, version: str, at: dt.datetime) -> None:
        said = {"decision": decision, "version_id": version, "at": moment(at)}
        self.retained.add(Kind.REMOVAL_DECISION, said)

    def lets_go(self, age_days: int) -> bool:
        """Tell whether the tombstone may be over an entry of the access log that was so old by then."""
        return self.retained.lets_go(Kind.ACCESS, NOW - age_days * DAY, STONE)


@pytest.fixture
def said() -> Said:
    return Said()


def test_a_tombstone_is_over_its_own_places() -> None:
    retained = Retained()
    retained.bury([STONE, STONE._replace(key="erased", reason=Reason.ERASURE, leaves=[(5, 8)])])

    over = [retained.stone_over(place) is STONE for place in range(2, 10)]

    assert over == [False, True, True, False, False, False, True, False]


def test_an_entry_may_go_when_the_period_that_counts_is_over(said: Said) -> None:
    said.period(30, LONG_AGO)

    assert (said.lets_go(30), said.lets_go(29)) == (True, False)


def test_by_no_period_and_by_one_for_good_nothing_goes(said: Said) -> None:
    assert not said.lets_go(400)
    said.period(None, LONG_AGO)
    assert not said.lets_go(400)


def test_a_longer_period_replaces_a_shorter_one_at_once(said: Said) -> None:
    said.period(30, LONG_AGO)
    said.period(200, NOW - HOUR / 2)

    assert (said.lets_go(199), said.lets_go(200)) == (False, True)


def test_a_shorter_period_waits_and_the_longer_one_counts_until_then(said: Said) -> None:
    said.period(200, LONG_AGO)
    said.period(30, NOW - HOUR / 2)

    assert (said.lets_go(199), said.lets_go(200)) == (False, True)


def test_the_first_period_waits_too(said: Said) -> None:
    said.period(30, NOW - HOUR / 2)

    assert not said.lets_go(400)


def test_a_period_that_waited_for_long_enough_counts(said: Said) -> None:
    said.period(200, LONG_AGO)
    said.period(30, NOW - 2 * HOUR)

    assert said.lets_go(30)


def test_a_period_that_somebody_confirmed_waits_no_longer(said: Said) -> None:
    said.period(200, LONG_AGO)
    said.decision("confirmed", said.period(30, NOW - HOUR / 2), NOW - HOUR / 4)

    assert said.lets_go(30)


def test_a_period_that_was_objected_to_never_counts(said: Said) -> None:
    said.period(200, LONG_AGO)
    said.decision("objected", said.period(30, NOW - 100 * DAY), NOW - 99 * DAY)

    assert (said.lets_go(199), said.lets_go(200)) == (False, True)


def test_a_period_that_has_not_begun_lets_nothing_go(said: Said) -> None:
    said.period(30, LONG_AGO, begins=NOW + DAY)

    assert not said.lets_go(400)


def test_what_a_transaction_need_not_have_seen_is_not_held_against_it(said: Said) -> None:
    said.period(30, LONG_AGO)
    said.period(200, NOW - dt.timedelta(minutes=1))

    assert said.lets_go(30)


def test_a_reading_goes_by_a_period_of_readings_that_nobody_objected_to(said: Said) -> None:
    def lets_go() -> bool:
        return said.retained.lets_go(Kind.EXPLANATION, NOW, STONE)

    said.period(30, LONG_AGO)
    said.period(30, LONG_AGO, records="canaries")
    said.period(None, LONG_AGO, records=None)
    said.decision("objected", said.period(30, LONG_AGO, records=None), LONG_AGO)
    said.period(30, LONG_AGO, begins=NOW + DAY, records=None)
    assert not lets_go()
    said.period(30, LONG_AGO, records=None)
    assert lets_go()
