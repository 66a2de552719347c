"""The rows that a bundle holds: whether each opens its entry, and each entry of the period has one."""

import hashlib
from collections import Counter
from datetime import datetime
from typing import Final

from service.evidence import merkle
from service.evidence.bundle.archive import Archive, parsed
from service.evidence.bundle.entries import Entries, Entry
from service.evidence.bundle.finding import Place, Report, What
from service.evidence.bundle.layout import (
    FILES,
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
from service.evidence.entry import commit, entry_bytes
from service.evidence.note import Checkpoint
from service.evidence.payloads import Kind

_TOMBSTONE: Final = "tombstone"


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
        self._erased: list[tuple[int, int, int]] = []  # entry of a tombstone, and a range that it covers

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
            self._report.rows_not_in_log += 1
        elif row.salt is None:
            self._check_closed(row, row.entry, kind, place)
        else:
            self._check_open(row, row.entry, row.salt, kind, place)

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
        if kind == _TOMBSTONE:
            self._note_tombstone(row, entry, place)

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
        trail = row.payload.get("trail", [])
        for entry in row.earlier:
            is_its = entry in self._entries and self._entries.at(entry).commitment.hex() in trail
            if not is_its:
                self._report.add(What.ROW_CHANGED, place, f"entry {entry} is of none of its earlier states")
            else:
                self._meet(entry, kind, place)

    def _meet(self, entry: int, kind: str, place: Place) -> bool:
        """Note that an entry has its row; report it when it had one."""
        if entry in self._entries:
            is_first = not self._met[entry - self._entries.first]
            self._met[entry - self._entries.first] = 1
        else:
            is_first = (kind, entry) not in self._outside
            self._outside.add((kind, entry))
        if not is_first:
            self._report.add(What.ROW_REPEATED, place, f"entry {entry} has a row already")
        return is_first

    def _note_tombstone(self, row: Line, entry: int, place: Place) -> None:
        try:
            self._erased.extend((entry, int(first), int(end)) for first, end in row.payload["leaves"])
        except (KeyError, TypeError, ValueError):
            self._report.add(What.ROW_UNREADABLE, place, "it does not say which entries it is for")

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
            if self._meet(entry, found.kind, place):
                self._count(entry, found, reason, by, place)
        return digest.hexdigest()

    def _count(self, entry: int, found: Entry, reason: Reason, by: int | None, place: Place) -> None:
        counts = self._report.withheld
        counts[reason] = counts.get(reason, 0) + 1
        if reason is Reason.MISSING:
            self._report.add(What.ROW_MISSING, place, f"the store had no {found.kind} for entry {entry}")
        if reason is Reason.ERASED and not any(
            one == by and first <= entry < end for one, first, end in self._erased
        ):
            self._report.add(What.ROW_MISSING, place, f"no tombstone in the bundle is for entry {entry}")

    def close(self) -> None:
        """Report the entries of the period that nothing accounts for, and proofs that are of no row."""
        for entry in self._paths.unused():
            self._report.add(What.MEMBER_UNEXPECTED, Place(PATHS), f"no row here is of entry {entry}")
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
        self._report.of_other_kinds = others.total()


def _withheld(told: object) -> tuple[int, Reason, int | None]:
    if not isinstance(told, dict) or set(told) - {"by"} != {"entry", "reason"}:
        raise ShapeError("the line says no entry with a reason")
    if type(told["entry"]) is not int or type(told.get("by")) not in {int, type(None)}:
        raise ShapeError("the line names a place that is no number")
    return told["entry"], Reason(told["reason"]), told.get("by")
