"""A tenant's rows and log as `service.evidence.verify` asks for them, from one session."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.evidence.entry import COMMITMENT_BYTES, Leaf
from service.evidence.incident import IncidentState
from service.evidence.row import Row
from service.evidence.verify import Node, Pending
from service.store.evidence import tree
from service.store.evidence.rows import list_incidents, list_rows
from service.store.evidence.tables import LogLeaf, LogNode, LogPending

_AT_ONCE: Final = 5000
_LEAF: Final = (LogLeaf.seq, LogLeaf.kind, LogLeaf.at, LogLeaf.commitment)


class StoredLog:
    """What the database says; of one moment when the session's transaction is REPEATABLE READ."""

    def __init__(self, session: Session, tenant: uuid.UUID) -> None:
        self._session = session
        self._tenant = tenant

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaves by their places."""
        query = select(*_LEAF).where(LogLeaf.tenant_id == self._tenant).order_by(LogLeaf.seq)
        for row in self._session.execute(query.execution_options(yield_per=_AT_ONCE)):
            yield Leaf(*row)

    def nodes(self) -> Iterator[Node]:
        """Yield the stored nodes."""
        query = select(LogNode.level, LogNode.number, LogNode.hash).where(LogNode.tenant_id == self._tenant)
        for row in self._session.execute(query.execution_options(yield_per=_AT_ONCE)):
            yield Node(*row)

    def find(self, commitments: Sequence[bytes]) -> Mapping[bytes, Leaf]:
        """Return the leaves of those commitments that have one."""
        query = select(*_LEAF).where(
            LogLeaf.tenant_id == self._tenant,
            LogLeaf.commitment == tree.one_of(commitments),
        )
        return {row.commitment: Leaf(*row) for row in self._session.execute(query)} if commitments else {}

    def pending(self) -> Iterator[Pending]:
        """Yield what waits."""
        query = select(LogPending).where(LogPending.tenant_id == self._tenant).order_by(LogPending.id)
        for one in self._session.scalars(query):
            starts = range(0, len(one.commitments), COMMITMENT_BYTES)
            commitments = [one.commitments[at : at + COMMITMENT_BYTES] for at in starts]
            yield Pending(one.id, one.kind, one.at, commitments)

    def rows(self) -> Iterator[Sequence[Row]]:
        """Yield the rows, some at a time."""
        return list_rows(self._session, self._tenant)

    def incidents(self) -> Iterator[IncidentState]:
        """Yield where each incident stands."""
        return list_incidents(self._session, self._tenant)

    def notes(self) -> Iterator[str]:
        """Yield the copies of the checkpoints, the smallest first."""
        for one in tree.list_notes(self._session, self._tenant):
            yield one.note
