"""How short a period of records may be, by what is kept of the readings."""

import pytest

from service.retention.records import OfReadings, problem_of
from service.store.retention.tables import Records

AI_ACT, GOOD, SHORT = OfReadings(183, 365), OfReadings(None, None), OfReadings(None, 3)


@pytest.mark.parametrize(
    ("records", "readings", "least"),
    [
        (Records.ACCESS_LOG, [AI_ACT, SHORT], 365),
        (Records.ACCESS_LOG, [SHORT], 3),
        (Records.ACCESS_LOG, [SHORT, GOOD], None),
        (Records.CANARIES, [AI_ACT, SHORT], 183),
        (Records.CANARIES, [GOOD], 1),
        (Records.WEBHOOKS, [AI_ACT], 183),
        (Records.WEBHOOKS, [], 8),
    ],
)
def test_records_are_kept_as_long_as_what_they_tell_about(
    records: Records, readings: list[OfReadings], least: int | None
) -> None:
    allowed = {days for days in range(1, 400) if problem_of(records, days, readings) is None}

    assert allowed == (set() if least is None else set(range(least, 400)))
    assert problem_of(records, None, readings) is None
