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
from service.evidence.periods import Periods

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
    """Which entries may have gone when their period was over.

    A period is a row of the log, and so is what was said to it. Of an entry of the access log the period
    has to be over that counted when its tombstone was added. Of a reading some period has to have begun:
    its entry says neither of which model it is nor when it was captured.
    """

    def __init__(self) -> None:
        self._of_entries = Periods()
        self._of_readings: dict[str, datetime] = {}  # from when on, by version
        self._objected: set[str] = set()
        self._ranges: list[tuple[int, int, Tombstone]] = []
        self._days: dict[str, int | None] = {}  # by tombstone, of the access log; None: for good

    def add(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take a row of the log, of whichever kind."""
        if kind == Kind.RETENTION_VERSION and payload.get("records") == _ACCESS_LOG:
            self._of_entries.add(kind, payload)
        elif kind == Kind.RETENTION_VERSION and payload.get("records") is None:
            if payload["period_days"] is not None:
                begins = datetime.fromisoformat(str(payload["in_force_from"]))
                self._of_readings[str(payload["id"])] = begins
        elif kind == Kind.REMOVAL_DECISION:
            self._of_entries.add(kind, payload)
            if payload["decision"] == "objected":
                self._objected.add(str(payload["version_id"]))

    def bury(self, stones: Iterable[Tombstone]) -> None:
        """Take the tombstones, once."""
        of_runs = (one for one in stones if one.reason == Reason.RETENTION)
        self._ranges = sorted(
            ((first, behind, one) for one in of_runs for first, behind in one.leaves),
            key=lambda one: one[:2],
        )

    def stone_over(self, place: int) -> Tombstone | None:
        """Return the tombstone of retention over a place; None where there is none."""
        number = bisect_right(self._ranges, place, key=lambda one: one[0]) - 1
        return self._ranges[number][2] if number >= 0 and place < self._ranges[number][1] else None

    def lets_go(self, kind: str, at: datetime, stone: Tombstone) -> bool:
        """Tell whether an entry of this kind and time may lie under a tombstone of retention."""
        if kind != Kind.ACCESS:
            return any(
                begins <= stone.at + TRANSACTION_TIME and version not in self._objected
                for version, begins in self._of_readings.items()
            )
        if stone.key not in self._days:
            counting = self._of_entries.counting(stone.at)
            self._days[stone.key] = min((days for days in counting if days is not None), default=None)
        days = self._days[stone.key]
        # An entry and its row may be so far apart.
        return days is not None and at <= stone.at - timedelta(days=days) + TRANSACTION_TIME


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
