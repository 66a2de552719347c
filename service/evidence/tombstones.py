"""Tombstones: which entries of the log lost their rows on purpose, and by what right. Pure.

A tombstone is a row that the log commits to like any other. It names places of entries before its own, so
it tells nothing of what was deleted, and hides nothing that came later.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from service.evidence.entry import TRANSACTION_TIME
from service.evidence.payloads import Kind, payload_of

BURIABLE: Final = frozenset({Kind.EXPLANATION, Kind.FLAG, Kind.INCIDENT_EVENT, Kind.ACCESS})
"""Kinds whose entries may lose their rows. Definitions, decoders and tombstones are nobody's data."""

NEVER_BEFORE: Final = frozenset(
    {
        Kind.TOMBSTONE,
        Kind.RETENTION_VERSION,
        Kind.LEGAL_HOLD,
        Kind.LEGAL_HOLD_LIFT,
        Kind.REMOVAL_DECISION,
        Kind.DELETION_CERTIFICATE,
    }
)
"""Kinds of which there were no rows before the log: one without an entry was put there behind its back."""

_ACCESS_LOG: Final = "access_log"
"""What a period of the access log says that it is of."""

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Places of entries, as (first, behind the last), in rising order and without touching."""


class Reason(StrEnum):
    """Why rows were deleted."""

    ERASURE = "erasure"
    RETENTION = "retention"


class Tombstone(NamedTuple):
    """What a tombstone says, once the log is known to have it."""

    key: str
    authority: UUID
    """The erasure request or retention run."""
    leaves: Ranges
    total: int
    """How many entries it says that it covers."""
    reason: str
    at: datetime
    """When it was added, as its row says."""
    seq: int | None
    """Its own place; None while it waits for one."""


def ranges_of(places: Iterable[int]) -> list[tuple[int, int]]:
    """Return the places as ranges."""
    found: list[tuple[int, int]] = []
    for place in sorted(set(places)):
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def count_of(leaves: Ranges) -> int:
    """Return how many places the ranges hold."""
    return sum(behind - first for first, behind in leaves)


def tombstone_payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a tombstone's row, of which ``leaves`` are `Ranges`."""
    return payload_of(Kind.TOMBSTONE, row)


def read(key: str, payload: Mapping[str, Any], at: datetime, seq: int | None) -> Tombstone:
    """Return what the committed payload says."""
    leaves = [(int(first), int(behind)) for first, behind in payload["leaves"]]
    authority, reason = UUID(str(payload["authority"])), str(payload["reason"])
    return Tombstone(key, authority, leaves, int(payload["count"]), reason, at, seq)


class Retained:
    """Which entries of the access log may have gone when their period was over.

    A period is a row of the log, and so is who objected to it. Of all that had begun when the tombstone was
    added, the shortest counts.
    """

    def __init__(self) -> None:
        self._periods: dict[str, tuple[datetime, int]] = {}
        self._objected: set[str] = set()
        self._ranges: list[tuple[int, int, datetime]] = []

    def add(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take a row of the log, of whichever kind."""
        if kind == Kind.RETENTION_VERSION and payload.get("records") == _ACCESS_LOG:
            if payload["period_days"] is not None:
                begins = datetime.fromisoformat(str(payload["in_force_from"]))
                self._periods[str(payload["id"])] = (begins, int(payload["period_days"]))
        elif kind == Kind.REMOVAL_DECISION and payload["decision"] == "objected":
            self._objected.add(str(payload["version_id"]))

    def bury(self, stones: Iterable[Tombstone]) -> None:
        """Take the tombstones, once."""
        of_runs = (one for one in stones if one.reason == Reason.RETENTION)
        self._ranges = sorted((first, behind, one.at) for one in of_runs for first, behind in one.leaves)

    def covers(self, place: int, at: datetime) -> bool:
        """Tell whether the entry of this place and time was due under the tombstone over it."""
        number = bisect_right(self._ranges, place, key=lambda one: one[0]) - 1
        if number < 0 or place >= self._ranges[number][1]:
            return False
        buried_at = self._ranges[number][2]
        periods = [
            days
            for version, (begins, days) in self._periods.items()
            if version not in self._objected and begins <= buried_at + TRANSACTION_TIME
        ]
        # An entry and its row may be so far apart.
        return bool(periods) and at <= buried_at - timedelta(days=min(periods)) + TRANSACTION_TIME


class Graves:
    """Which of a log's entries lie under a tombstone that is allowed to cover them."""

    def __init__(self, leaves: int) -> None:
        self._leaves = leaves
        self._covered = bytearray((leaves >> 3) + 1)  # a bit an entry

    def add(self, stone: Tombstone) -> Iterator[int]:
        """Cover what came before the tombstone; yield each place that did not, and is not covered."""
        limit = self._leaves if stone.seq is None else min(stone.seq, self._leaves)
        for first, behind in stone.leaves:
            for place in range(max(first, 0), min(behind, limit)):
                self._covered[place >> 3] |= 1 << (place & 7)
            if behind > limit:
                yield max(first, limit)

    def covers(self, place: int) -> bool:
        """Tell whether an entry lies under a tombstone."""
        return 0 <= place < self._leaves and bool(self._covered[place >> 3] & 1 << (place & 7))
