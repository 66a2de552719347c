"""The entries that a bundle holds: read line by line, hashed into the signed root, kept by place."""

import json
import re
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from service.evidence import merkle
from service.evidence.bundle import proof as proofs
from service.evidence.bundle.archive import Archive
from service.evidence.bundle.finding import Place, Report, What
from service.evidence.bundle.layout import LEAVES, Query
from service.evidence.bundle.proof import Proof
from service.evidence.entry import COMMITMENT_BYTES, TRANSACTION_TIME, entry_bytes
from service.evidence.note import Checkpoint

_KIND: Final = re.compile(r"^[a-z_]{1,32}$")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Entry(NamedTuple):
    """One entry, without its place."""

    kind: str
    at: datetime
    commitment: bytes


class Entries:
    """Entries one after the other, 48 bytes each: a month may have many millions."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._commitments = bytearray()
        self._times = array("q")
        self._kinds = bytearray()
        self._names: list[str] = []

    def add(self, entry: Entry) -> None:
        """Add the next one."""
        if entry.kind not in self._names:
            self._names.append(entry.kind)
        self._kinds.append(self._names.index(entry.kind))
        self._times.append((entry.at - _EPOCH) // _MICROSECOND)
        self._commitments += entry.commitment

    @property
    def end(self) -> int:
        """The place behind the last one."""
        return self.first + len(self._times)

    def __contains__(self, place: int) -> bool:
        return self.first <= place < self.end

    def at(self, place: int) -> Entry:
        """Return the entry at this place; IndexError when it is not here."""
        if place not in self:
            raise IndexError(place)
        number = place - self.first
        return Entry(
            self._names[self._kinds[number]],
            _EPOCH + self._times[number] * _MICROSECOND,
            bytes(self._commitments[number * COMMITMENT_BYTES : (number + 1) * COMMITMENT_BYTES]),
        )

    def within(self, query: Query) -> Iterator[tuple[int, str]]:
        """Yield place and kind of the entries of a period."""
        start, end = ((one - _EPOCH) // _MICROSECOND for one in (query.start, query.end))
        for number, at in enumerate(self._times):
            if start <= at < end:
                yield self.first + number, self._names[self._kinds[number]]


def parse(line: bytes) -> Entry:
    """Return the entry that a leaf's bytes say; ValueError when they say none."""
    told = json.loads(line)
    if not isinstance(told, dict) or not _KIND.match(str(told.get("kind"))):
        raise ValueError("it has no kind of entry")
    at, commitment = datetime.fromisoformat(str(told.get("at"))), str(told.get("commitment"))
    entry = Entry(told["kind"], at, bytes.fromhex(commitment))
    if len(entry.commitment) != COMMITMENT_BYTES or entry_bytes(*entry) != line:
        raise ValueError("it is not written as entries are")
    return entry


def read(archive: Archive, proof: Proof, checkpoint: Checkpoint, report: Report) -> Entries:
    """Return the bundle's entries; report what cannot be one, and whether they lead to the signed root.

    Raises ArchiveError when the member cannot be read.
    """
    entries = Entries(proof.first)
    try:
        tree = merkle.Frontier(proof.first, proof.before)
    except ValueError as error:
        report.add(What.ENTRIES_CHANGED, Place("proof.json"), str(error))
        return entries
    latest = _EPOCH
    for number, line in enumerate(archive.lines(LEAVES), 1):
        try:
            entry = parse(line[:-1])
        except (ValueError, KeyError) as error:
            report.add(What.ENTRIES_CHANGED, Place(LEAVES, number), f"entry {entries.end}: {error}")
            return entries
        if entry.at < latest - TRANSACTION_TIME:
            why = f"entry {entries.end} is of {entry.at}, after one of {latest}"
            report.add(What.BACKDATED, Place(LEAVES, number), why)
        latest = max(latest, entry.at)
        entries.add(entry)
        tree.add(merkle.leaf_hash(line[:-1]))
    report.entries = entries.end - entries.first
    _check_root(tree, proof, checkpoint, report)
    return entries


def _check_root(tree: merkle.Frontier, proof: Proof, checkpoint: Checkpoint, report: Report) -> None:
    named = f"entries {proof.first} to {tree.size - 1}"
    why = None
    if tree.size == proof.first or tree.size > checkpoint.size:
        why = f"{named} are none, or more than the {checkpoint.size} that were signed"
    else:
        try:
            root = proofs.root_from(tree, proof.behind, checkpoint.size)
        except merkle.ProofError as error:
            why = str(error)
        else:
            if root != checkpoint.root:
                why = (
                    f"{named} do not lead to the signed root: one was changed, removed, added or moved, or"
                    " a hash of the proof was"
                )
    if why is not None:
        report.add(What.ENTRIES_CHANGED, Place(LEAVES), why)


def check_period(entries: Entries, query: Query, sealed: int, report: Report) -> None:
    """Report unless no entry of the period can stand before or behind the bundle's.

    An entry is older than one before it by `TRANSACTION_TIME` at most. So one that is older than the period
    by more has none of the period before it, and one that is younger by as much has none behind it.
    ``sealed`` is the place of the seal, which was entered when the period was over for as long.
    """
    if entries.first == entries.end:
        return
    if entries.first > 0 and entries.at(entries.first).at >= query.start - TRANSACTION_TIME:
        report.add(
            What.PERIOD_NOT_COVERED,
            Place(LEAVES, 1),
            f"the first entry is of {entries.at(entries.first).at}, so that others of the period may be"
            f" missing before it: it must be over {TRANSACTION_TIME} older than the period",
        )
    last = entries.end - 1
    if sealed != last and entries.at(last).at < query.end + TRANSACTION_TIME:
        report.add(
            What.PERIOD_NOT_COVERED,
            Place(LEAVES, entries.end - entries.first),
            f"the last entry is of {entries.at(last).at}, so that others of the period may be missing"
            f" behind it: it must be {TRANSACTION_TIME} younger than the period, or the seal",
        )
