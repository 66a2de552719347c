"""Which period of retention counted when, by the log's own rows: versions, and decisions on them. Pure.

As the database has it: of what has begun the version that began last counts. One by which more goes than
before waits, unless somebody confirms it, and never begins when somebody objects.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from service.evidence.entry import TRANSACTION_TIME
from service.evidence.payloads import Kind

WAITS_AT_LEAST: Final = timedelta(hours=1)
"""A tenant's time to object is no row of the log; the database lets it be no shorter."""


class _Version(NamedTuple):
    set_at: datetime
    id: str
    in_force_from: datetime
    days: int | None


class Periods:
    """The periods of one kind of records of a tenant."""

    def __init__(self) -> None:
        self._versions: list[_Version] = []
        self._decisions: dict[str, tuple[str, datetime]] = {}
        self._begun: list[tuple[datetime, _Version]] | None = None

    def add(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take a version, or a decision on whichever removal."""
        self._begun = None
        if kind == Kind.RETENTION_VERSION:
            days = payload["period_days"]
            self._versions.append(
                _Version(
                    _time(payload["set_at"]),
                    str(payload["id"]),
                    _time(payload["in_force_from"]),
                    None if days is None else int(days),
                )
            )
        elif kind == Kind.REMOVAL_DECISION:
            decision = str(payload["decision"]), _time(payload["at"])
            self._decisions[str(payload["version_id"])] = decision

    def counting(self, at: datetime) -> set[int | None]:
        """Return the periods in days that may have counted for a transaction of then; None: for good.

        More than one where another began so shortly before that the transaction need not have seen it.
        """
        if self._begun is None:
            self._begun = []
            for version in sorted(self._versions, key=lambda one: (one.set_at, one.id)):
                begins = self._begins(version)
                if begins is not None:
                    self._begun.append((begins, version))
        return self._counting(self._begun, at)

    def _begins(self, version: _Version) -> datetime | None:
        """Return from when on a version counts, those that were set before it being known; None: never."""
        decision, decided_at = self._decisions.get(version.id, ("", version.in_force_from))
        if decision == "objected":
            return None
        if decision == "confirmed":
            return max(version.in_force_from, decided_at)
        before = self._counting(self._begun or [], version.set_at)
        is_later = version.days is not None and version.in_force_from > version.set_at
        if is_later or all(_is_shorter(version.days, one) for one in before):
            return max(version.in_force_from, version.set_at + WAITS_AT_LEAST)
        return version.in_force_from

    @staticmethod
    def _counting(begun: list[tuple[datetime, _Version]], at: datetime) -> set[int | None]:
        known = [(begins, one.set_at, one.id, one.days) for begins, one in begun if begins <= at]
        fresh = {one[3] for one in known if one[0] > at - TRANSACTION_TIME}
        settled = [one for one in known if one[0] <= at - TRANSACTION_TIME]
        return fresh | {max(settled, key=lambda one: one[:3])[3] if settled else None}


def _is_shorter(days: int | None, counting: int | None) -> bool:
    return days is not None and (counting is None or days < counting)


def _time(moment: object) -> datetime:
    return datetime.fromisoformat(str(moment))
