"""The rows that a bundle holds: whether each opens its entry, and each entry of the period has one."""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from service.evidence import merkle
from service.evidence.bundle.archive import Archive, parsed
from service.evidence.bundle.entries import Entries, Entry
from service.evidence.bundle.finding import Place, Report, What
from service.evidence.bundle.layout import (
    FILES,
    OF_EVERY_READER,
    PATHS,
    TEXT_OF_EXPLANATION,
    WITHHELD,
    Line,
    Query,
    Reason,
    ShapeError,
    read_line,
    read_moment,
)
from service.evidence.entry import TRANSACTION_TIME, commit, entry_bytes
from service.evidence.note import Checkpoint
from service.evidence.payloads import Kind
from service.evidence.tombstones import BURIABLE, NEVER_BEFORE, Ranges, count_of
from service.evidence.tombstones import Reason as Erasing
from service.evidence.verify import ROLLOUT_TIME

_AT: Final[Mapping[str, str]] = {
    Kind.EXPLANATION: "created_at",
    Kind.FLAG: "created_at",
    Kind.DECODER: "created_at",
    Kind.CONCEPT_VERSION: "created_at",
    Kind.INCIDENT_EVENT: "at",
    Kind.ACCESS: "at",
}
"""By kinds that were there before the log, when a row says that it was stored."""
_OF_ROW, _WITHHELD = 1, 2
_SHORTEST_PERIOD: Final = timedelta(days=1) - TRANSACTION_TIME
"""A bundle need not hold the version by which entries of the access log went; no period is shorter."""


class Paths:
    """The inclusion proofs of rows whose last entry is not among the bundle's."""

    def __init__(self, archive: Archive, report: Report) -> None:
        """Read them; ArchiveError when the member cannot be read."""
        self._known: dict[int, tuple[datetime, list[bytes]]] = {}
        self._used: set[int] = set()
        for number, line in enumerate(archive.lines(PATHS), 1):
            try:
                entry, at, path = _path(parsed(line[:-1]))
                if entry in self._known:
                    raise ShapeError(f"entry {entry} has two proofs")
            except (ValueError, TypeError) as error:
                report.add(What.ROW_UNREADABLE, Place(PATHS, number), str(error))
                continue
            self._known[entry] = at, path

    def use(self, entry: int) -> tuple[datetime, list[bytes]] | None:
        """Return time and proof of an entry."""
        self._used.add(entry)
        return self._known.get(entry)

    def unused(self) -> list[int]:
        """Return the entries whose proofs no row needed."""
        return sorted(set(self._known) - self._used)


def _path(told: object) -> tuple[int, datetime, list[bytes]]:
    if not isinstance(told, dict) or set(told) != {"entry", "at", "path"} or type(told["entry"]) is not int:
        raise ShapeError("the line is no proof of an entry")
    return told["entry"], read_moment(told["at"]), [bytes.fromhex(one) for one in told["path"]]


class Accounts:
    """Which entries have a row."""

    def __init__(
        self, entries: Entries, paths: "Paths", checkpoint: Checkpoint, query: Query, report: Report
    ) -> None:
        self._entries, self._checkpoint, self._query = entries, checkpoint, query
        self._paths = paths
        self._report = report
        self._met = bytearray(entries.end - entries.first)
        self._outside: set[tuple[str, int]] = set()
        self._stones: dict[int, Ranges] = {}  # by their entries
        self._retained: dict[int, datetime] = {}  # by entry, when tombstones of retention were added
        self._shrunk: set[str] = set()  # commitments to what entries of the access log said before

    def read_table(self, archive: Archive, member: str, kind: str) -> str:
        """Hold a Parquet member's rows against their entries; return its SHA-256 in hexadecimal."""
        from service.evidence.bundle import parquet

        with archive.copied(member) as (copy, digest):
            try:
                for number, row in enumerate(parquet.Rows(copy), 1):
                    if isinstance(row, parquet.ColumnError):
                        self._report.add(What.ROW_CHANGED, Place(member, number, row.key), str(row))
                    elif isinstance(row, ValueError):
                        self._report.add(What.ROW_UNREADABLE, Place(member, number), str(row))
                    else:
                        self._check(row, kind, Place(member, number, row.key))
            except parquet.ParquetError as error:
                self._report.add(What.MEMBER_UNREADABLE, Place(member), str(error))
        return digest

    def read(self, archive: Archive, member: str, kind: str) -> str:
        """Hold a member's rows against their entries; return its SHA-256 in hexadecimal."""
        digest = hashlib.sha256()
        for number, line in enumerate(archive.lines(member), 1):
            digest.update(line)
            try:
                row = read_line(parsed(line[:-1]))
            except ValueError as error:  # a ShapeError is one
                self._report.add(What.ROW_UNREADABLE, Place(member, number), str(error))
                continue
            self._check(row, kind, Place(member, number, row.key))
        return digest.hexdigest()

    def _check(self, row: Line, kind: str, place: Place) -> None:
        if row.entry is None:
            if row.salt is not None or row.earlier:
                self._report.add(What.ROW_CHANGED, place, "it has a salt and names no entry")
            self._check_unlogged(row, kind, place)
        elif row.salt is None:
            self._check_closed(row, row.entry, kind, place)
        else:
            self._check_open(row, row.entry, row.salt, kind, place)

    def _check_unlogged(self, row: Line, kind: str, place: Place) -> None:
        """Only what was stored before the log may have no entry; see `verify.ROLLOUT_TIME`."""
        self._report.rows_not_in_log += 1
        begun = (
            self._entries.at(self._entries.first).at if self._entries.first < self._entries.end else None
        )
        try:
            at = read_moment(row.payload[_AT[kind]])
        except (KeyError, ValueError):
            # Configurations have a log that began later, which the bundle need not reach back to.
            is_late = kind in NEVER_BEFORE or kind in _AT
        else:
            is_late = begun is not None and at > begun + ROLLOUT_TIME
        if is_late:
            self._report.add(What.ROW_NOT_IN_LOG, place, "it has no entry, and there was a log already")

    def _check_closed(self, row: Line, entry: int, kind: str, place: Place) -> None:
        """Only an explanation without its text may leave its entry closed."""
        has_text = any(name in row.payload for name in TEXT_OF_EXPLANATION)
        if kind != Kind.EXPLANATION or self._query.with_text or has_text or row.earlier:
            self._report.add(What.ROW_CHANGED, place, f"it has no salt that would open entry {entry}")
        elif entry not in self._entries or self._entries.at(entry).kind != kind:
            self._report.add(What.ROW_CHANGED, place, f"entry {entry} is of no {kind} in this bundle")
        elif self._meet(entry, kind, place):
            self._report.rows_without_text += 1

    def _check_open(self, row: Line, entry: int, salt: bytes, kind: str, place: Place) -> None:
        why = self._misfit(entry, commit(salt, row.payload), kind)
        if why is not None:
            self._report.add(What.ROW_CHANGED, place, why)
            return
        if self._meet(entry, kind, place):
            self._report.rows_opened += 1
        self._check_earlier(row, kind, place)
        if kind == Kind.TOMBSTONE:
            self._note_tombstone(row, entry, place)
        if kind == Kind.ACCESS:
            self._shrunk.update(_trail(row))

    def _misfit(self, entry: int, commitment: bytes, kind: str) -> str | None:
        """Return why a row is not what its entry was made of; None when it is."""
        if entry in self._entries:
            found = self._entries.at(entry)
            if found.kind != kind:
                return f"its entry {entry} says that it is a {found.kind}"
            if found.commitment != commitment:
                return f"payload and salt do not give the commitment of entry {entry}"
            return None
        found_path = self._paths.use(entry)
        if found_path is None:
            return f"its entry {entry} is not in the bundle and has no proof in {PATHS}"
        at, path = found_path
        leaf = merkle.leaf_hash(entry_bytes(kind, at, commitment))
        try:
            merkle.check_inclusion(leaf, entry, self._checkpoint.size, path, self._checkpoint.root)
        except merkle.ProofError as error:
            return str(error)
        return None

    def _check_earlier(self, row: Line, kind: str, place: Place) -> None:
        # What an entry of the access log said before is for a tombstone to account for.
        trail = [] if kind == Kind.ACCESS else _trail(row)
        for entry in row.earlier:
            is_its = entry in self._entries and self._entries.at(entry).commitment.hex() in trail
            if not is_its:
                self._report.add(What.ROW_CHANGED, place, f"entry {entry} is of none of its earlier states")
            else:
                self._meet(entry, kind, place)

    def _meet(self, entry: int, kind: str, place: Place, by: int = _OF_ROW) -> bool:
        """Note that an entry has its row; report it when it had one."""
        if entry in self._entries:
            is_first = not self._met[entry - self._entries.first]
            self._met[entry - self._entries.first] = by
        else:
            is_first = (kind, entry) not in self._outside
            self._outside.add((kind, entry))
        if not is_first:
            self._report.add(What.ROW_REPEATED, place, f"entry {entry} has a row already")
        return is_first

    def _note_tombstone(self, row: Line, entry: int, place: Place) -> None:
        try:
            leaves = _leaves(row.payload["leaves"])
            total = row.payload["count"]
        except (KeyError, TypeError, ValueError):
            self._report.add(What.ROW_UNREADABLE, place, "it does not say which entries it is for")
            return
        if row.payload.get("reason") == Erasing.RETENTION:
            self._retained[entry] = read_moment(row.payload.get("at"))
        self._report.tombstones += 1
        self._stones[entry] = leaves
        if leaves[-1][1] > entry:
            why = f"it covers entry {leaves[-1][1] - 1}, which did not come before it"
            self._report.add(What.TOMBSTONE_AHEAD, place, why)
        if total != count_of(leaves):
            why = f"it says {total} entries and covers {count_of(leaves)}"
            self._report.add(What.TOMBSTONE_MISCOUNTED, place, why)

    def read_withheld(self, archive: Archive) -> str:
        """Take up the entries that are named as withheld; return the member's SHA-256 in hexadecimal."""
        digest = hashlib.sha256()
        for number, line in enumerate(archive.lines(WITHHELD), 1):
            digest.update(line)
            place = Place(WITHHELD, number)
            try:
                entry, reason, by = _withheld(parsed(line[:-1]))
                found = self._entries.at(entry)
            except (ValueError, IndexError) as error:
                self._report.add(What.ROW_UNREADABLE, place, f"it names no entry of the bundle: {error}")
                continue
            if self._meet(entry, found.kind, place, _WITHHELD):
                self._count(entry, found, reason, by, place)
        return digest.hexdigest()

    def _count(self, entry: int, found: Entry, reason: Reason, by: int | None, place: Place) -> None:
        counts = self._report.withheld
        counts[reason] = counts.get(reason, 0) + 1
        if reason is Reason.MISSING:
            self._report.add(What.ROW_MISSING, place, f"the store had no {found.kind} for entry {entry}")
        if reason is Reason.ERASED and not self._is_buried(entry, found, by):
            self._report.add(What.ROW_MISSING, place, f"no tombstone in the bundle is for entry {entry}")
        if reason is Reason.OUT_OF_SCOPE and not self._may_be_out_of_scope(found.kind):
            why = f"entry {entry} is of a {found.kind}, which this export had no reason to leave out"
            self._report.add(What.ROW_MISSING, place, why)

    def _may_be_out_of_scope(self, kind: str) -> bool:
        is_others = self._query.is_restricted and kind not in OF_EVERY_READER
        return is_others or kind == Kind.CONCEPT_VERSION

    def _is_buried(self, entry: int, found: Entry, by: int | None) -> bool:
        """Tell whether the tombstone covers an entry that may lose its row, and came before it."""
        if by is None or entry >= by or found.kind not in BURIABLE:
            return False
        if found.kind == Kind.ACCESS and found.commitment.hex() not in self._shrunk:
            # Its row stands, with less in it, or it was due; else somebody hides who read.
            at = self._retained.get(by)
            if at is None or found.at > at - _SHORTEST_PERIOD:
                return False
        return any(first <= entry < end for first, end in self._stones.get(by, ()))

    def _check_standing(self) -> None:
        """Report tombstones over entries whose rows are here all the same."""
        first = self._entries.first
        outside = sorted(entry for _, entry in self._outside)  # of rows with a proof of their own
        for stone, leaves in self._stones.items():
            for start, end in leaves:
                at = self._met.find(_OF_ROW, max(start - first, 0), max(end - first, 0))
                met = [] if at < 0 else [first + at]
                for entry in met + outside[bisect_left(outside, start) : bisect_left(outside, end)][:1]:
                    place = Place(FILES[Kind.TOMBSTONE])
                    why = f"the tombstone of entry {stone} covers entry {entry}, whose row is here"
                    self._report.add(What.TOMBSTONE_OVER_ROW, place, why)

    def close(self) -> None:
        """Report the entries of the period that nothing accounts for, and proofs that are of no row."""
        for entry in self._paths.unused():
            self._report.add(What.MEMBER_UNEXPECTED, Place(PATHS), f"no row here is of entry {entry}")
        self._check_standing()
        asked, others = set(self._query.kinds), Counter[str]()
        for entry, kind in self._entries.within(self._query):
            self._report.entries_in_period += 1
            if kind not in asked:
                others[kind] += 1
            elif not self._met[entry - self._entries.first]:
                self._report.add(
                    What.ENTRY_WITHOUT_ROW,
                    Place(FILES.get(kind, WITHHELD)),
                    f"entry {entry} is of a {kind} of the period, which is neither here nor withheld",
                )
        self._report.of_other_kinds = dict(sorted(others.items()))


def _trail(row: Line) -> Sequence[str]:
    """Return the commitments to what a row was before."""
    found = row.payload.get("trail", [])
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else []


def _leaves(told: object) -> Ranges:
    """Return a tombstone's ranges; ValueError unless they rise and do not touch."""
    if not isinstance(told, list) or not told:
        raise ValueError("a tombstone covers something")
    leaves = [(first, end) for first, end in told]
    behind = -1
    for first, end in leaves:
        if type(first) is not int or type(end) is not int or not behind < first < end:
            raise ValueError("its ranges are none")
        behind = end
    return leaves


def _withheld(told: object) -> tuple[int, Reason, int | None]:
    if not isinstance(told, dict) or set(told) - {"by"} != {"entry", "reason"}:
        raise ShapeError("the line says no entry with a reason")
    if type(told["entry"]) is not int or type(told.get("by")) not in {int, type(None)}:
        raise ShapeError("the line names a place that is no number")
    return told["entry"], Reason(told["reason"]), told.get("by")
