"""When a report continues a period, and until when a period lasts. Pure."""

import datetime as dt
from typing import Final, NamedTuple

REPORT_SECONDS: Final = 60.0
"""From one report of a source to its next."""
HOLDS: Final = dt.timedelta(minutes=5)
"""How long a report stands for: after it nobody knows what is in force until the next one."""


class Known(NamedTuple):
    """The last period of a source, kind, model and layer."""

    version_id: int
    last_seen_at: dt.datetime
    ended_at: dt.datetime | None


class Change(NamedTuple):
    """What a report does to the periods: any of it, or nothing."""

    last_seen_at: dt.datetime | None = None  # of the known period
    ended_at: dt.datetime | None = None  # of the known period
    begins: bool = False  # a period of its own


def change(known: Known | None, version_id: int, at: dt.datetime) -> Change:
    """Return what a report of this version at this time changes.

    1. What is not newer than all that is known came late or twice, and changes nothing.
    2. The same version within `HOLDS` of the last report goes on; after that nobody knows what was between.
    3. Another version ends the known period, where no report is missing between the two.
    """
    if known is None:
        return Change(begins=True)
    if at <= (known.ended_at or known.last_seen_at):
        return Change()
    is_open = known.ended_at is None and at <= known.last_seen_at + HOLDS
    if is_open and known.version_id == version_id:
        return Change(last_seen_at=at)
    return Change(ended_at=at if is_open else None, begins=True)
