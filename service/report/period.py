"""The period of a report, and how its times and calls are written."""

import datetime as dt
from typing import NamedTuple
from urllib.parse import urlencode


class Period(NamedTuple):
    """What a report is of."""

    start: dt.datetime
    end: dt.datetime
    model: str | None

    def call(self, path: str, **more: str) -> str:
        """Return the call of the API for this period."""
        asked = {"from": _time(self.start), "to": _time(self.end), **more}
        if self.model is not None and "model" not in more:
            asked["model"] = self.model
        return f"GET /v1/{path}?{urlencode(asked, safe=':')}"


def _time(value: dt.datetime) -> str:
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def minute(value: dt.datetime | None) -> str:
    """Return the time to the minute, UTC; nothing for none."""
    return "" if value is None else value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M")
