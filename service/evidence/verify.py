"""Hold rows, log and checkpoints of one tenant against each other, and name all that does not fit. Pure.

Nothing is believed but the public key: leaves are hashed anew, every node and every root is recomputed, and
every row is committed to again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from service.evidence.cosignature import WitnessVerifier
from service.evidence.entry import TRANSACTION_TIME, Leaf
from service.evidence.incident import Histories, IncidentState
from service.evidence.merkle import Frontier
from service.evidence.note import Checkpoint, NoteError, Verifier, read_checkpoint
from service.evidence.payloads import Kind
from service.evidence.row import Row
from service.evidence.timestamp import TimestampError
from service.evidence.timestamped import Kept, Reach, Timestamps
from service.evidence.tombstones import (
    BURIABLE,
    NEVER_BEFORE,
    Graves,
    Retained,
    Tombstone,
    count_of,
    read,
)

TILE_HEIGHT: Final = 8
"""A node is stored of each 2**8 leaves or nodes below it, as in C2SP tlog-tiles."""
ROLLOUT_TIME: Final = timedelta(days=1)
"""For how long after a log's first entry rows may still come from workers of before it."""
_MAY_PRECEDE: Final = frozenset({Kind.FLAG, Kind.DECODER})
"""Kinds whose row may be from before the log, as it gets an entry when it changes."""
_MAY_LAG: Final = frozenset({Kind.CONFIGURATION_PERIOD})
"""Kinds whose row may be of long before its entry: a report that waited stands for when it was made."""
_ADDED_LATER: Final = frozenset(
    {Kind.CONFIGURATION_VERSION, Kind.CONFIGURATION_CONTENT, Kind.CONFIGURATION_PERIOD}
)
"""Kinds that logs of before have no entries of: for them the log begins with the first one."""


class What(StrEnum):
    """What does not fit."""

    CHECKPOINT_UNREADABLE = "checkpoint_unreadable"
    CHECKPOINT_OUT_OF_ORDER = "checkpoint_out_of_order"
    CHECKPOINT_MISSING = "checkpoint_missing"
    LEAF_MISSING = "leaf_missing"
    LEAVES_CHANGED = "leaves_changed"
    NODE_CHANGED = "node_changed"
    BACKDATED = "backdated"
    KIND_CHANGED = "kind_changed"
    ROW_CHANGED = "row_changed"
    ROW_DELETED = "row_deleted"
    ROW_NOT_IN_LOG = "row_not_in_log"
    TOMBSTONE_OVER_ROW = "tombstone_over_row"
    TOMBSTONE_AHEAD = "tombstone_ahead"
    TOMBSTONE_MISCOUNTED = "tombstone_miscounted"
    TOMBSTONE_NOT_DUE = "tombstone_not_due"
    INCIDENT_CHANGED = "incident_changed"
    COSIGNATURE_MISSING = "cosignature_missing"
    SPLIT_VIEW = "split_view"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_UNREADABLE = "timestamp_unreadable"
    POSTDATED = "postdated"


class Finding(NamedTuple):
    """One thing that does not fit."""

    what: What
    where: str
    why: str


class Node(NamedTuple):
    """The stored root of 2 ** (TILE_HEIGHT * level) leaves."""

    level: int
    number: int
    hash: bytes


class Pending(NamedTuple):
    """Commitments of one transaction that have no place yet."""

    id: int
    kind: str
    at: datetime
    commitments: Sequence[bytes]


class Log(Protocol):
    """One tenant's rows and log, all of one moment."""

    def leaves(self) -> Iterable[Leaf]:
        """Yield the leaves by their places."""

    def nodes(self) -> Iterable[Node]:
        """Yield the stored nodes."""

    def find(self, commitments: Sequence[bytes]) -> Mapping[bytes, Leaf]:
        """Return the leaves of those commitments that have one."""

    def pending(self) -> Iterable[Pending]:
        """Yield what waits."""

    def rows(self) -> Iterable[Sequence[Row]]:
        """Yield the rows, some at a time."""

    def incidents(self) -> Iterable[IncidentState]:
        """Yield where each incident stands, as its row says."""

    def notes(self) -> Iterable[str]:
        """Yield the database's copies of the checkpoints, the smallest first."""


@dataclass(slots=True)
class Report:
    """What was looked at, and what does not fit."""

    findings: list[Finding] = field(default_factory=list)
    leaves: int = 0
    rows: int = 0
    """Rows that opened their entry."""
    pending: int = 0
    checkpoints: int = 0
    tombstones: int = 0
    erased: int = 0
    """Entries whose rows were deleted under a tombstone."""
    cosigned: int = 0
    """Entries of the tree that the witness has cosigned."""
    timestamped: Reach | None = None
    """How far timestamps reach; None when none were asked for, or none holds."""
    not_in_log: dict[str, int] = field(default_factory=dict)
    """Rows from before the log, by kind: nothing is said about them."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Entries of kinds that this version has no rows for."""

    def add(self, what: What, where: str, why: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(what, where, why))


def origin_of(name: str, tenant: UUID) -> str:
    """Return what a tenant's checkpoints call their log."""
    return f"{name}/{tenant}"


class Witnessed(NamedTuple):
    """What a witness has kept of a log."""

    verifier: WitnessVerifier
    note: str | None
    """The newest that it has cosigned; None when it has none."""


def verify(
    log: Log,
    notes: Sequence[str],
    verifier: Verifier,
    origin: str,
    *,
    witnessed: Witnessed | None = None,
    timestamped: Kept | None = None,
) -> Report:
    """Return what does not fit, in the order in which it was found.

    ``notes`` are the folder's, which no login of the database can write. An entry without a row fits only
    where a tombstone that is in the log itself, and came later, covers it. With ``witnessed`` a witness has
    to have cosigned this history; with ``timestamped`` an authority
    has to have timestamped it.
    """
    report = Report()
    checkpoints = _read(notes, verifier, origin, report)
    report.checkpoints = len(checkpoints)
    _compare_copies(log.notes(), notes, report)
    cosigned = None if witnessed is None else _read_cosigned(witnessed, verifier, origin, report)
    timestamps = None if timestamped is None else _read_timestamped(timestamped, verifier, origin, report)
    begun = _check_tree(log, checkpoints, _Others(cosigned, timestamps, report), report)
    _check_rows(log, begun, report)
    return report


def _read(notes: Iterable[str], verifier: Verifier, origin: str, report: Report) -> list[Checkpoint]:
    """Return the checkpoints that are signed and of this log, each larger than those before it."""
    checkpoints: list[Checkpoint] = []
    for number, note in enumerate(notes):
        where = f"checkpoint {number}"
        try:
            checkpoint = read_checkpoint(verifier.open(note))
        except NoteError as error:
            report.add(What.CHECKPOINT_UNREADABLE, where, str(error))
            continue
        if checkpoint.origin != origin:
            report.add(What.CHECKPOINT_UNREADABLE, where, f"it is of another log, {checkpoint.origin}")
        elif checkpoints and checkpoint.size <= checkpoints[-1].size:
            report.add(
                What.CHECKPOINT_OUT_OF_ORDER,
                where,
                f"it is of {checkpoint.size} entries and follows one of {checkpoints[-1].size}",
            )
        else:
            checkpoints.append(checkpoint)
    return checkpoints


def _read_cosigned(
    witnessed: Witnessed, verifier: Verifier, origin: str, report: Report
) -> Checkpoint | None:
    """Return the checkpoint that both the log and the witness have signed."""
    where = f"witness {witnessed.verifier.name}"
    if witnessed.note is None:
        if report.checkpoints:
            report.add(What.COSIGNATURE_MISSING, where, "it has cosigned no checkpoint of this log")
        return None
    try:
        checkpoint = read_checkpoint(witnessed.verifier.open(witnessed.note).text)
        verifier.open(witnessed.note)
    except NoteError as error:
        report.add(What.COSIGNATURE_MISSING, where, str(error))
        return None
    if checkpoint.origin != origin:
        report.add(What.COSIGNATURE_MISSING, where, f"it is of another log, {checkpoint.origin}")
        return None
    return checkpoint


def _read_timestamped(kept: Kept, verifier: Verifier, origin: str, report: Report) -> Timestamps:
    """Return the checkpoints that the log has signed and the authority has timestamped."""
    timestamps = Timestamps()
    holds = False
    for number, (note, response) in enumerate(kept.timestamps):
        where = f"timestamp {number}"
        try:
            checkpoint = read_checkpoint(verifier.open(note))
            at = kept.authority.open(response, note)
        except (NoteError, TimestampError) as error:
            report.add(What.TIMESTAMP_UNREADABLE, where, str(error))
            continue
        if checkpoint.origin == origin:
            timestamps.add(checkpoint, at)
            holds = True
        else:
            report.add(What.TIMESTAMP_UNREADABLE, where, f"it is of another log, {checkpoint.origin}")
    if report.checkpoints and not holds:
        report.add(What.TIMESTAMP_MISSING, "checkpoints", "none has a timestamp that holds")
    return timestamps


def _compare_copies(copies: Iterable[str], notes: Sequence[str], report: Report) -> None:
    of_database, of_folder = list(copies), set(notes)
    known = set(of_database)
    for note in of_database:
        if note not in of_folder:
            report.add(What.CHECKPOINT_MISSING, _named(note), "the database has it and the folder has not")
    for note in notes:
        if note not in known:
            report.add(What.CHECKPOINT_MISSING, _named(note), "the folder has it and the database has not")


def _named(note: str) -> str:
    return f"checkpoint of {note.split(chr(10))[1] if note.count(chr(10)) else '?'} entries"


class Begun(NamedTuple):
    """When a log got its first entry: of any kind, and of each that logs of before have not."""

    at: datetime | None
    later: Mapping[str, datetime]

    def after(self, leaf: Leaf) -> "Begun":
        """Return it with one more entry."""
        is_first = leaf.kind in _ADDED_LATER and leaf.kind not in self.later
        if self.at is not None and not is_first:
            return self
        later = {**self.later, leaf.kind: leaf.at} if is_first else self.later
        return Begun(leaf.at if self.at is None else self.at, later)

    def of(self, kind: str) -> datetime | None:
        """Return from when on rows of a kind have entries; None while there is none."""
        return self.later.get(kind) if kind in _ADDED_LATER else self.at


class _Leaves:
    """The leaves one after the other: places, times and tree."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.frontier = Frontier()
        self.begun = Begun(None, {})
        self._latest: datetime | None = None
        self._ahead = 0

    def add(self, leaf: Leaf) -> None:
        place = self.frontier.size + self._ahead
        if leaf.seq != place:
            missing = f"entry {place}" if leaf.seq <= place + 1 else f"entries {place} to {leaf.seq - 1}"
            self._report.add(What.LEAF_MISSING, missing, f"the next one in the log is entry {leaf.seq}")
            self._ahead = leaf.seq - self.frontier.size
        self.begun = self.begun.after(leaf)
        self._latest = leaf.at if self._latest is None else max(self._latest, leaf.at)
        if leaf.at < self._latest - TRANSACTION_TIME:
            self._report.add(
                What.BACKDATED, f"entry {leaf.seq}", f"it is of {leaf.at}, after one of {self._latest}"
            )
        self.frontier.add(leaf.hash())


class _Others:
    """What a witness has cosigned and an authority timestamped, held against the leaves."""

    def __init__(self, cosigned: Checkpoint | None, timestamps: Timestamps | None, report: Report) -> None:
        self._cosigned = cosigned
        self._timestamps = timestamps
        self._report = report

    def add(self, leaf: Leaf, frontier: Frontier) -> None:
        """Take the next leaf, which is in the frontier already."""
        if self._timestamps is not None:
            self._timestamps.compare(leaf, frontier)
        if self._cosigned is None or self._cosigned.size != frontier.size:
            return
        if self._cosigned.root == frontier.root():
            self._report.cosigned = frontier.size
            return
        where = f"entries 0 to {frontier.size - 1}"
        self._report.add(
            What.SPLIT_VIEW, where, "the log has signed another history of them for its witness"
        )

    def end(self, size: int) -> None:
        """Take that there are no more leaves than these."""
        if self._cosigned is not None and self._cosigned.size > size:
            where = f"entries {size} to {self._cosigned.size - 1}"
            why = "the witness has cosigned them, and the log has them no more"
            self._report.add(What.SPLIT_VIEW, where, why)
        if self._timestamps is None:
            return
        self._report.timestamped = self._timestamps.end(size)
        for misfit in self._timestamps.other_history:
            self._report.add(What.SPLIT_VIEW, *misfit)
        for misfit in self._timestamps.postdated:
            self._report.add(What.POSTDATED, *misfit)


def _check_tree(log: Log, checkpoints: Sequence[Checkpoint], others: "_Others", report: Report) -> "Begun":
    """Recompute the tree; return when it began."""
    roots = {one.size: one.root for one in checkpoints}
    stored = {(one.level, one.number): one.hash for one in log.nodes()}
    leaves = _Leaves(report)
    fits = 0
    misfits: list[int] = []
    wrong_nodes: list[tuple[int, int]] = []
    for leaf in log.leaves():
        leaves.add(leaf)
        size = leaves.frontier.size
        wrong_nodes.extend(
            (level, number)
            for level, number, node in leaves.frontier.completed(TILE_HEIGHT)
            if stored.pop((level, number), None) != node
        )
        others.add(leaf, leaves.frontier)
        if (root := roots.pop(size, None)) is not None:
            if root != leaves.frontier.root():
                misfits.append(size)
            elif not misfits:
                fits = size
    report.leaves = leaves.frontier.size
    others.end(report.leaves)
    if roots:
        report.add(
            What.LEAF_MISSING,
            f"entries {report.leaves} to {max(roots) - 1}",
            "they are in a signed checkpoint and not in the log",
        )
    if misfits:
        report.add(
            What.LEAVES_CHANGED,
            f"entries {fits} to {misfits[0] - 1}{_within(wrong_nodes)}",
            f"changed or in another order: the checkpoint of {misfits[0]} entries has another root,"
            f" and so have {len(misfits) - 1} later ones",
        )
    # With other leaves every node above them is another one.
    _add_nodes(report, [] if misfits else wrong_nodes, "the entries below give another")
    _add_nodes(report, stored, "the log has no entries for it")
    return leaves.begun


def _add_nodes(report: Report, nodes: Iterable[tuple[int, int]], why: str) -> None:
    for level, number in nodes:
        report.add(What.NODE_CHANGED, f"node {number} of level {level}", why)


def _within(wrong: Sequence[tuple[int, int]]) -> str:
    lowest = [number for level, number in wrong if level == 1]
    width = 1 << TILE_HEIGHT
    return f", first within {lowest[0] * width} to {(lowest[0] + 1) * width - 1}" if lowest else ""


class _Accounts:
    """Which entries have a row, and which rows have none."""

    def __init__(self, log: Log, begun: Begun, report: Report) -> None:
        self._log, self._begun, self._report = log, begun, report
        self._found = bytearray((report.leaves >> 3) + 1)  # a bit an entry
        self._shrunk: set[int] = set()
        self._again: list[tuple[str, datetime]] = []  # where the access log was entered anew, and when
        self._buried_at: set[datetime] = set()
        self.waiting: dict[bytes, Pending] = {}
        self.strays: defaultdict[str, list[tuple[Row, int]]] = defaultdict(list)
        """By kind, rows of which entries are missing, with how many."""
        self.tombstones: list[Tombstone] = []
        self.retained = Retained()
        for batch in log.pending():
            report.pending += len(batch.commitments)
            self.waiting |= dict.fromkeys(batch.commitments, batch)

    def add(self, rows: Sequence[Row]) -> None:
        leaves = self._log.find([one for row in rows for one in row.commitments])
        for row in rows:
            if row.salt is None:
                self._add_without(row)
                continue
            missing = 0
            place = None
            for number, commitment in enumerate(row.commitments):
                leaf, batch = leaves.get(commitment), self.waiting.pop(commitment, None)
                if leaf is None and batch is None:
                    missing += 1
                    continue
                place = None if leaf is None else leaf.seq
                if place is not None and not row.accounts_for(number):
                    self._shrunk.add(place)
                elif place is not None and 0 <= place < self._report.leaves:
                    self._found[place >> 3] |= 1 << (place & 7)
                kind, at = (leaf.kind, leaf.at) if leaf is not None else (batch.kind, batch.at)  # type: ignore[union-attr]  # one is there
                self._compare(row, kind, at, is_first=number == 0)
            if missing:
                self.strays[row.kind].append((row, missing))
            else:
                self._report.rows += 1
                self.retained.add(row.kind, row.payload)
                if row.kind == Kind.TOMBSTONE:
                    self.tombstones.append(read(row.key, row.payload, row.at, place))

    def _add_without(self, row: Row) -> None:
        counts = self._report.not_in_log
        counts[row.kind] = counts.get(row.kind, 0) + 1
        begun = self._begun.of(row.kind)
        is_late = begun is not None and row.at > begun + ROLLOUT_TIME
        if is_late or row.kind in NEVER_BEFORE:
            self._report.add(
                What.ROW_NOT_IN_LOG,
                f"{row.kind} {row.key}",
                f"it is of {row.at}, when there was a log already",
            )

    def _compare(self, row: Row, kind: str, at: datetime, *, is_first: bool) -> None:
        where = f"{row.kind} {row.key}"
        if kind != row.kind:
            self._report.add(What.KIND_CHANGED, where, f"its entry says that it is a {kind}")
        if row.kind == Kind.ACCESS and not is_first:
            self._again.append((where, at))
        elif row.kind == Kind.TOMBSTONE:
            self._buried_at.add(at)
        begun = self._begun.of(row.kind)
        is_older = begun is not None and row.at < begun and row.kind in _MAY_PRECEDE
        is_older |= row.at < at and row.kind in _MAY_LAG
        if is_first and not is_older and abs(row.at - at) > TRANSACTION_TIME:
            self._report.add(What.BACKDATED, where, f"it says {row.at}, and its entry is of {at}")

    def without_row(self) -> Iterator[Leaf]:
        """Yield the entries that no row accounts for."""
        if all(self.is_found(seq) for seq in range(self._report.leaves)):
            return
        for leaf in self._log.leaves():
            if not self.is_found(leaf.seq):
                yield leaf

    def entered_anew(self) -> Iterator[tuple[str, datetime]]:
        """Yield the rows of the access log that say a state of theirs was entered by no erasure, and when.

        An erasure enters its tombstone in the same transaction. So nobody can pass another row's entry off
        as what this one said before.
        """
        return (one for one in self._again if one[1] not in self._buried_at)

    def may_be_buried(self, leaf: Leaf) -> bool:
        """Tell whether an entry may lie under a tombstone: of the access log, if it stands or was due.

        Erasure takes ids out of a row there and deletes none, not even the one that tells of the erasure.
        """
        if leaf.kind == Kind.ACCESS and leaf.seq in self._shrunk:
            return True
        stone = self.retained.stone_over(leaf.seq)
        if stone is not None and leaf.kind in BURIABLE:
            return self.retained.lets_go(leaf.kind, leaf.at, stone)
        return leaf.kind in BURIABLE and leaf.kind != Kind.ACCESS

    def not_due(self, leaf: Leaf) -> Tombstone | None:
        """Return the tombstone by which an entry went before its time, if a run of retention added it."""
        return None if self.may_be_buried(leaf) else self.retained.stone_over(leaf.seq)

    def is_found(self, seq: int) -> bool:
        """Tell whether a row accounts for an entry."""
        return 0 <= seq < self._report.leaves and bool(self._found[seq >> 3] & 1 << (seq & 7))


def _check_rows(log: Log, begun: Begun, report: Report) -> None:
    accounts, histories = _Accounts(log, begun, report), Histories()
    for part in log.rows():
        accounts.add(part)
        histories.add([row.payload for row in part if row.kind == Kind.INCIDENT_EVENT])
        histories.add_access([row.payload for row in part if row.kind == Kind.ACCESS])
    for key, why in histories.compare(log.incidents()):
        report.add(What.INCIDENT_CHANGED, f"incident {key}", why)
    for where, at in accounts.entered_anew():
        report.add(What.ROW_CHANGED, where, f"it was entered again at {at}, when there was no tombstone")
    orphans = _orphans(accounts, _dug(accounts, report), report)
    for kind, strays in accounts.strays.items():
        for row, missing in strays:
            _add_stray(report, row, missing, orphans.get(kind, []))
    kinds = set(Kind)
    for kind, entries in orphans.items():
        if kind not in kinds:
            report.unknown[kind] = len(entries)
        elif len(entries) > sum(missing for _, missing in accounts.strays.get(kind, [])):
            for where in entries:
                report.add(What.ROW_DELETED, where, f"no {kind} fits it, and no tombstone says why")


def _dug(accounts: _Accounts, report: Report) -> Graves:
    """Return what lies under tombstones, and add what they should not cover."""
    graves = Graves(report.leaves)
    report.tombstones = len(accounts.tombstones)
    accounts.retained.bury(accounts.tombstones)
    for stone in accounts.tombstones:
        where = f"{Kind.TOMBSTONE} {stone.key}"
        for place in graves.add(stone):
            report.add(What.TOMBSTONE_AHEAD, where, f"it covers entry {place}, which came after it")
        if stone.total != count_of(stone.leaves):
            why = f"it says {stone.total} entries and covers {count_of(stone.leaves)}"
            report.add(What.TOMBSTONE_MISCOUNTED, where, why)
        for first, behind in stone.leaves:
            for place in range(max(first, 0), min(behind, report.leaves)):
                if accounts.is_found(place):
                    why = f"it covers entry {place}, whose row still stands"
                    report.add(What.TOMBSTONE_OVER_ROW, where, why)
    return graves


def _orphans(accounts: _Accounts, graves: Graves, report: Report) -> dict[str, list[str]]:
    """Return the entries that neither a row nor a tombstone accounts for, by kind."""
    orphans: defaultdict[str, list[str]] = defaultdict(list)
    early: dict[str, list[Leaf]] = {}
    for leaf in accounts.without_row():
        if accounts.may_be_buried(leaf) and graves.covers(leaf.seq):
            report.erased += 1
            continue
        orphans[leaf.kind].append(f"entry {leaf.seq} of {leaf.at}")
        if (stone := accounts.not_due(leaf)) is not None:
            early.setdefault(stone.key, []).append(leaf)
    for key, leaves in early.items():
        why = f"no period that counted by then let entry {leaves[0].seq} of {leaves[0].at} go"
        others = f", nor {len(leaves) - 1} more" if leaves[1:] else ""
        report.add(What.TOMBSTONE_NOT_DUE, f"{Kind.TOMBSTONE} {key}", why + others)
    for batch in accounts.waiting.values():
        orphans[batch.kind].append(f"waiting entry {batch.id} of {batch.at}")
    return orphans


def _add_stray(report: Report, row: Row, missing: int, orphans: Sequence[str]) -> None:
    where = f"{row.kind} {row.key}"
    if orphans:
        why = f"{missing} of its entries do not fit it; one may be {orphans[0]}"
        report.add(What.ROW_CHANGED, where, why)
    else:
        report.add(What.ROW_NOT_IN_LOG, where, f"{missing} of its entries are not in the log")
