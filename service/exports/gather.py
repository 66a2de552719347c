"""Rows of a period as a bundle has them, tied to their entries, and what no row accounts for."""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy.orm import Session

from service.evidence.bundle.archive import written
from service.evidence.bundle.layout import OF_EVERY_READER, Line, Reason, line_of, without_text
from service.evidence.entry import Leaf
from service.evidence.payloads import Kind
from service.evidence.row import Row
from service.evidence.tombstones import BURIABLE
from service.store.evidence.log import StoredLog
from service.store.evidence.range import list_leaves
from service.store.evidence.rows import Window, list_window
from service.store.identity import capture_name

_CONTEXT: Final = frozenset({Kind.DECODER, Kind.CONCEPT_VERSION, Kind.TOMBSTONE})
"""Kinds whose rows are wanted whenever they are from."""


class Grave(NamedTuple):
    """Entries that lost their rows under a tombstone."""

    entry: int
    """The tombstone's own."""
    first: int
    end: int


@dataclass(kw_only=True)
class Gathering:
    """The rows of one export, from one snapshot in which the reader meets what the export may hold."""

    session: Session
    log: Session
    """Of a later moment, at which every entry of the rows has its place."""
    tenant: uuid.UUID
    kinds: Sequence[Kind]
    window: Window
    with_text: bool
    is_restricted: bool
    """To some models."""
    first: int
    """The place of the first entry that the bundle has."""
    size: int
    """Of the tree in that later snapshot."""
    graves: list[Grave] = field(default_factory=list)
    """What was erased on purpose; the tombstones are among the rows of the bundle."""
    handed_out: Counter[str] = field(default_factory=Counter)
    """Rows by kind."""
    withheld: Counter[str] = field(default_factory=Counter)
    """Entries of the period without a row, by reason."""
    outside: list[Leaf] = field(default_factory=list)
    """The last entries of rows that changed since, or are older: they may not be among the bundle's."""
    texts: list[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=list)
    """Explanations that were handed out with their text, each with its capture."""
    _met: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self._met = bytearray(max(0, self.size - self.first))

    def rows(self, kind: Kind) -> Iterator[bytes]:
        """Yield the rows of a kind that have an entry in the period, and those that others stand on."""
        log = StoredLog(self.log, self.tenant)
        for part in list_window(self.session, self.tenant, kind, self.window):
            leaves = log.find([one for row in part for one in row.commitments])
            for row in part:
                line = self._line(kind, row, [leaves.get(one) for one in row.commitments])
                if line is not None:
                    self.handed_out[kind] += 1
                    if kind is Kind.EXPLANATION and self.with_text:
                        self.texts.append((uuid.UUID(row.key), _capture_of(row)))
                    yield written(line_of(line))

    def _line(self, kind: Kind, row: Row, leaves: Sequence[Leaf | None]) -> Line | None:
        """Return a row as the bundle has it; None when it has no place there."""
        is_context = kind in _CONTEXT
        if row.salt is None or (is_context and leaves[-1] is None):
            is_wanted = kind is not Kind.TOMBSTONE and (is_context or self._is_in(row.at))
            return Line(payload=self._shown(kind, row), entry=None, salt=None) if is_wanted else None
        found = [one for number, one in enumerate(leaves) if one is not None and row.accounts_for(number)]
        if not is_context and not any(one is not None and self._is_in(one.at) for one in leaves):
            return None
        last = leaves[-1]
        if last is None:
            return None  # changed behind the log's back: its entries are named as missing
        self._note(found)
        if kind is Kind.TOMBSTONE:
            self.graves += [Grave(last.seq, first, end) for first, end in row.payload["leaves"]]
        earlier = [one.seq for one in found[:-1] if self._is_in(one.at)]
        is_closed = kind is Kind.EXPLANATION and not self.with_text
        if not self._is_in(last.at):
            self.outside.append(last)
        return Line(
            payload=self._shown(kind, row),
            entry=last.seq,
            salt=None if is_closed else row.salt,
            earlier=() if is_closed else earlier,
        )

    def _is_in(self, at: dt.datetime) -> bool:
        return self.window.start <= at < self.window.end

    def _shown(self, kind: Kind, row: Row) -> dict[str, object]:
        if kind is Kind.EXPLANATION and not self.with_text:
            return without_text(row.payload)
        return dict(row.payload)

    def _note(self, leaves: Sequence[Leaf]) -> None:
        for one in leaves:
            if self.first <= one.seq < self.size:
                self._met[one.seq - self.first] = 1

    def unaccounted(self) -> Iterator[bytes]:
        """Yield the entries of the period that no row opened, with the reason; call it behind `rows`."""
        kinds = {str(one) for one in self.kinds}
        for leaf in list_leaves(self.log, self.tenant, self.first, self.size):
            if leaf.kind in kinds and self._is_in(leaf.at) and not self._met[leaf.seq - self.first]:
                by = self._grave_of(leaf)
                reason = self._reason(leaf) if by is None else Reason.ERASED
                self.withheld[reason] += 1
                told = {"entry": leaf.seq, "reason": str(reason)}
                yield written(told if by is None else told | {"by": by})

    def _grave_of(self, leaf: Leaf) -> int | None:
        """Return the entry of the tombstone that covers an entry of before it."""
        if leaf.kind not in BURIABLE:
            return None
        covering = (one.entry for one in self.graves if one.first <= leaf.seq < min(one.end, one.entry))
        # The last one: retention buries what is left of an entry of which erasure buried a part.
        return max(covering, default=None)

    def _reason(self, leaf: Leaf) -> Reason:
        is_others = self.is_restricted and leaf.kind not in OF_EVERY_READER
        if is_others or leaf.kind == Kind.CONCEPT_VERSION:
            return Reason.OUT_OF_SCOPE
        return Reason.MISSING


def _capture_of(row: Row) -> uuid.UUID:
    sample = row.payload["sample"]
    capture = None if sample["capture_id"] is None else uuid.UUID(sample["capture_id"])
    return capture_name(capture, uuid.UUID(sample["model_id"]), sample["request_id"])
