"""When a serious incident has to be reported under Article 73 of Regulation (EU) 2024/1689. Pure.

The law counts from when the provider becomes aware of the incident, and which term applies depends on what
happened to people. Neither is in the store: a term is worked out for each class, from the confirmation and,
as the earliest that awareness can be, from the opening.
"""

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Clock(StrEnum):
    """A class of serious incidents, by the term for its report."""

    WIDESPREAD = "widespread"  # or of critical infrastructure: Art. 73(3)
    DEATH = "death"  # Art. 73(4)
    OTHER = "other"  # Art. 73(2)


TERMS: Final[Mapping[Clock, dt.timedelta]] = {
    Clock.WIDESPREAD: dt.timedelta(days=2),
    Clock.DEATH: dt.timedelta(days=10),
    Clock.OTHER: dt.timedelta(days=15),
}
"""At the latest; the law wants the report without delay."""
