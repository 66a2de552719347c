"""Give waiting entries their places, sign the tree, append the checkpoint: one step after the other.

A step takes the sequencers' lock in its own transaction and looks at the tree's size in it, so that two
sequencers at once do no harm: the second goes on from what the first has done.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.evidence import folder, merkle
from service.evidence.entry import COMMITMENT_BYTES, Leaf
from service.evidence.note import Checkpoint, NoteError, Signer, read_checkpoint
from service.evidence.verify import origin_of
from service.store.evidence import tree
from service.store.evidence.tables import LogPending

_LOCK: Final = 5_873_146_024


class NotAnExtensionError(RuntimeError):
    """The database's tree is not what a checkpoint says; nothing may be signed on top of it."""


class Sequenced(NamedTuple):
    """What one step did."""

    entries: int
    """That got a place."""
    repeated: int
    """That had a place already: a commitment is salted, so whoever sends one again has copied it."""
    batches: int


class Sequencer:
    """Writes the logs of all tenants."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        signer: Signer,
        checkpoints: Path,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """Look at nothing yet; `check` does."""
        self._sessions = sessions
        self._signer = signer
        self._folder = checkpoints
        self._clock = clock
        self._frontiers: dict[uuid.UUID, merkle.Frontier] = {}
        self._signed: dict[uuid.UUID, int] = {}

    def check(self) -> None:
        """Hold every tenant's tree against its last checkpoint, and make up for what a kill left undone.

        Raises NotAnExtensionError, which names the first tenant and size that do not fit, FolderError for
        files that are damaged, and NoteError for a checkpoint of another key.
        """
        with self._sessions.begin() as session:
            _lock(session)
            for tenant in sorted({*tree.list_tenants(session), *folder.tenants(self._folder)}):
                self._load(session, tenant)

    def _load(self, session: Session, tenant: uuid.UUID) -> merkle.Frontier:
        size = tree.size_of(session, tenant)
        notes = folder.read(self._folder, tenant)
        signed = 0
        if notes.whole:
            last = self._opened(tenant, notes.whole[-1])
            self._compare(session, tenant, size, last)
            signed = last.size
            self._add_copies(session, tenant, notes.whole)
        for copy in tree.list_notes(session, tenant, after=signed):
            raise NotAnExtensionError(
                f"tenant {tenant}: the database has a checkpoint of {copy.size} entries and {self._folder}"
                " has none: restore the folder; nothing is signed until then"
            )
        frontier = merkle.frontier_of(tree.Tree(session, tenant), size)
        self._frontiers[tenant], self._signed[tenant] = frontier, signed
        return frontier

    def _add_copies(self, session: Session, tenant: uuid.UUID, notes: Sequence[str]) -> None:
        """Copy the newest notes that the database has none of: whoever appended them was killed before."""
        copied = tree.newest_note(session, tenant)
        for one in reversed(notes):
            size = self._opened(tenant, one).size
            if size <= copied:
                break
            tree.add_note(session, tenant, size, one)

    def _opened(self, tenant: uuid.UUID, note: str) -> Checkpoint:
        checkpoint = read_checkpoint(self._signer.verifier.open(note))
        if checkpoint.origin != origin_of(self._signer.name, tenant):
            raise NoteError(f"tenant {tenant}: the last checkpoint is of the log {checkpoint.origin}")
        return checkpoint

    def _compare(self, session: Session, tenant: uuid.UUID, size: int, last: Checkpoint) -> None:
        if size < last.size:
            why = f"has {size} entries, and {last.size} were signed"
        elif merkle.frontier_of(tree.Tree(session, tenant), last.size).root() != last.root:
            why = f"has other entries among the first {last.size} than were signed"
        else:
            return
        raise NotAnExtensionError(
            f"tenant {tenant}: the log {why}: it was changed, or an old backup was restored; find out what"
            " differs by `subtext verify`; nothing is signed until then"
        )

    def sequence(self) -> Sequenced:
        """Give what waits its places, the oldest first, `tree.BATCHES_AT_ONCE` batches at most."""
        entries = repeated = 0
        try:
            with self._sessions.begin() as session:
                _lock(session)
                batches = tree.take_pending(session)
                by_tenant = sorted(batches, key=lambda one: (one.tenant_id, one.id))
                for tenant, of_tenant in groupby(by_tenant, key=lambda one: one.tenant_id):
                    new, old = self._add(session, tenant, list(of_tenant))
                    entries, repeated = entries + new, repeated + old
        except BaseException:
            self._frontiers.clear()  # they may be ahead of what was committed
            raise
        return Sequenced(entries, repeated, len(batches))

    def _add(self, session: Session, tenant: uuid.UUID, batches: list[LogPending]) -> tuple[int, int]:
        frontier = self._current(session, tenant)
        waiting = {
            commitment: (batch.kind, batch.at)
            for batch in batches
            for commitment in _split(batch.commitments)
        }
        known = tree.list_known(session, tenant, list(waiting))
        new = [(commitment, *one) for commitment, one in waiting.items() if commitment not in known]
        leaves = [
            Leaf(frontier.size + place, kind, at, commitment)
            for place, (commitment, kind, at) in enumerate(new)
        ]
        tree.add_leaves(session, tenant, frontier, leaves)
        total = sum(len(batch.commitments) for batch in batches) // COMMITMENT_BYTES
        return len(leaves), total - len(leaves)

    def _current(self, session: Session, tenant: uuid.UUID) -> merkle.Frontier:
        """Return the tenant's frontier, anew when another sequencer was at work meanwhile."""
        frontier = self._frontiers.get(tenant)
        if frontier is None or frontier.size != tree.size_of(session, tenant):
            frontier = self._load(session, tenant)
        return frontier

    def count_pending(self) -> int:
        """Return how many entries wait."""
        with self._sessions() as session:
            return tree.count_pending(session)

    def unsigned_age(self) -> float:
        """Return the seconds since the oldest entry without a signed checkpoint was written; 0 for none."""
        with self._sessions() as session:
            return tree.unsigned_age(session, self._signed)

    def sign(self) -> int:
        """Sign each tree that has grown and append its checkpoint; return how many were."""
        signed = 0
        try:
            for tenant in sorted(self._frontiers):
                with self._sessions.begin() as session:
                    _lock(session)
                    signed += self._sign(session, tenant)
        except BaseException:
            self._frontiers.clear()
            raise
        return signed

    def _sign(self, session: Session, tenant: uuid.UUID) -> bool:
        frontier = self._current(session, tenant)
        if frontier.size == self._signed.get(tenant, 0):
            return False
        checkpoint = Checkpoint(origin_of(self._signer.name, tenant), frontier.size, frontier.root())
        note = self._signer.sign(checkpoint.text())
        # The file first: the copy must never be ahead of what no login of the database can write.
        folder.append(self._folder, tenant, note, self._clock())
        self._signed[tenant] = frontier.size
        tree.add_note(session, tenant, frontier.size, note)
        return True


def _lock(session: Session) -> None:
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _split(commitments: bytes) -> list[bytes]:
    return [commitments[at : at + COMMITMENT_BYTES] for at in range(0, len(commitments), COMMITMENT_BYTES)]
