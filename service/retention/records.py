"""For how long records of the audit itself must be kept, by what is kept of the readings. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from service.store.retention.tables import Records

SENT_WITHIN_DAYS: Final = 8
"""A message younger than seven days may yet be sent, or noted as never sent."""


class OfReadings(NamedTuple):
    """For how long the readings of one model are kept, in days."""

    floor: int | None
    period: int | None
    """None: for good."""


def problem_of(records: Records, period: int | None, readings: Sequence[OfReadings]) -> str | None:
    """Return why a period in days is too short for these records; None: it is not.

    1. All of them are evidence of operation: no less than the highest floor of what is read.
    2. What may yet be sent stays.
    3. Who read a text is known for as long as the text is there.
    """
    least = [(max((one.floor or 0 for one in readings), default=0), "the floor of readings")]
    if records is Records.WEBHOOKS:
        least.append((SENT_WITHIN_DAYS, "so long messages may be sent"))
    if records is Records.ACCESS_LOG:
        if period is not None and any(one.period is None for one in readings):
            return "some readings are kept for good, and so is who read them; set a period for those first"
        least.append((max((one.period or 0 for one in readings), default=0), "so long readings are kept"))
    days, why = max(least)
    if period is None or period >= days:
        return None
    return f"{records} are kept for at least {days} days ({why}); give as many or more"
