"""What does not fit in a bundle, and what was looked at."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

MOST_FINDINGS: Final = 1000
"""Kept of one bundle; more are counted."""


class What(StrEnum):
    """What does not fit."""

    ARCHIVE_DAMAGED = "archive_damaged"
    MEMBER_UNEXPECTED = "member_unexpected"
    MEMBER_UNREADABLE = "member_unreadable"
    CHECKPOINT_UNREADABLE = "checkpoint_unreadable"
    ENTRIES_CHANGED = "entries_changed"
    PERIOD_NOT_COVERED = "period_not_covered"
    BACKDATED = "backdated"
    EARLIER_TREE_CHANGED = "earlier_tree_changed"
    MANIFEST_CHANGED = "manifest_changed"
    FILE_CHANGED = "file_changed"
    ROW_UNREADABLE = "row_unreadable"
    ROW_CHANGED = "row_changed"
    ROW_REPEATED = "row_repeated"
    ENTRY_WITHOUT_ROW = "entry_without_row"
    ROW_MISSING = "row_missing"
    ROW_NOT_IN_LOG = "row_not_in_log"
    TOMBSTONE_OVER_ROW = "tombstone_over_row"
    TOMBSTONE_AHEAD = "tombstone_ahead"
    TOMBSTONE_MISCOUNTED = "tombstone_miscounted"


class Place(NamedTuple):
    """Where it is."""

    member: str
    line: int | None = None
    """From 1; of a Parquet file the number of the row."""
    row: str | None = None
    """The row's key."""

    @property
    def _unit(self) -> str:
        return "number" if self.member.endswith(".parquet") else "line"

    def __str__(self) -> str:
        """Return it as it is told."""
        line = "" if self.line is None else f" {self._unit} {self.line}"
        return self.member + line + ("" if self.row is None else f", row {self.row}")


class Finding(NamedTuple):
    """One thing that does not fit."""

    what: What
    place: Place
    why: str


@dataclass(slots=True)
class Report:
    """What was looked at, and what does not fit, the first thing first."""

    findings: list[Finding] = field(default_factory=list)
    further: int = 0
    """Findings beyond `MOST_FINDINGS`."""
    entries: int = 0
    entries_in_period: int = 0
    rows_opened: int = 0
    """Rows whose payload and salt give the commitment of their entry."""
    rows_without_text: int = 0
    """Rows whose entry stays closed with their text: the sealed manifest alone speaks for them."""
    rows_not_in_log: int = 0
    """Rows from before the log: the sealed manifest alone speaks for them."""
    withheld: dict[str, int] = field(default_factory=dict)
    """Entries of the period without a row, by reason."""
    of_other_kinds: dict[str, int] = field(default_factory=dict)
    """Entries of the period of kinds that were not asked for, by kind."""
    tombstones: int = 0
    tree_size: int = 0
    log: str | None = None
    """What its checkpoint calls the log: whose it is."""
    period: tuple[str, str] | None = None
    """Start and end, as the log writes times."""

    def add(self, what: What, place: Place, why: str) -> None:
        """Add a finding."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(what, place, why))
        else:
            self.further += 1
