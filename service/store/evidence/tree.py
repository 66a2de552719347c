"""A tenant's tree in the database: read subtrees, add leaves, copy checkpoints. The caller commits."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, delete, func, insert, literal, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from service.evidence import merkle
from service.evidence.entry import COMMITMENT_BYTES, Leaf
from service.evidence.verify import TILE_HEIGHT
from service.store.evidence.tables import LogCheckpoint, LogLeaf, LogNode, LogPending

BATCHES_AT_ONCE: Final = 500
"""Of pending commitments, whose leaves one transaction adds."""
_UNSIGNED_AGE: Final = text("""
    SELECT EXTRACT(EPOCH FROM clock_timestamp() - LEAST(
        (SELECT min(at) FROM log_pending),
        (
            SELECT min(oldest.at)
            FROM unnest(CAST(:tenants AS uuid[]), CAST(:sizes AS bigint[])) AS signed (tenant, size)
            CROSS JOIN LATERAL (
                SELECT min(at) AS at FROM log_leaves WHERE tenant_id = signed.tenant AND seq >= signed.size
            ) AS oldest
        )
    ))
""")


class DamagedLogError(RuntimeError):
    """Leaves or nodes are missing; the message names the first."""


class Tree:
    """Subtrees from nodes, and from leaves where they are lower than a node."""

    def __init__(self, session: Session, tenant: uuid.UUID) -> None:
        self._session = session
        self._tenant = tenant

    def subtree(self, height: int, number: int) -> bytes:
        """Return the hash of a perfect subtree; DamagedLogError when a part of it is missing."""
        level = height // TILE_HEIGHT
        width = 1 << (height - level * TILE_HEIGHT)
        first = number * width
        hashes = self._leaves(first, width) if level == 0 else self._nodes(level, first, width)
        if len(hashes) != width:
            raise DamagedLogError(
                f"tenant {self._tenant}: of {width} hashes of level {level} from {first} on, {len(hashes)}"
                " are there; see: subtext verify"
            )
        return merkle.root_of(hashes)

    def _leaves(self, first: int, width: int) -> list[bytes]:
        query = (
            select(LogLeaf)
            .where(LogLeaf.tenant_id == self._tenant, LogLeaf.seq >= first, LogLeaf.seq < first + width)
            .order_by(LogLeaf.seq)
        )
        return [
            Leaf(one.seq, one.kind, one.at, one.commitment).hash() for one in self._session.scalars(query)
        ]

    def _nodes(self, level: int, first: int, width: int) -> list[bytes]:
        query = (
            select(LogNode.hash)
            .where(
                LogNode.tenant_id == self._tenant,
                LogNode.level == level,
                LogNode.number >= first,
                LogNode.number < first + width,
            )
            .order_by(LogNode.number)
        )
        return list(self._session.scalars(query))


def size_of(session: Session, tenant: uuid.UUID) -> int:
    """Return how many leaves the log has."""
    last = session.scalar(select(func.max(LogLeaf.seq)).where(LogLeaf.tenant_id == tenant))
    return 0 if last is None else last + 1


def list_tenants(session: Session) -> list[uuid.UUID]:
    """Return the tenants that have leaves, which the transaction may read."""
    found: list[uuid.UUID] = []
    # From one to the next by the key: all at once would read the whole index.
    query = select(LogLeaf.tenant_id).order_by(LogLeaf.tenant_id, LogLeaf.seq).limit(1)
    following = query
    while (tenant := session.scalar(following)) is not None:
        found.append(tenant)
        following = query.where(LogLeaf.tenant_id > tenant)
    return found


def take_pending(session: Session) -> list[LogPending]:
    """Delete what waits from its table and return it, the oldest first; `BATCHES_AT_ONCE` at most."""
    query = select(LogPending).order_by(LogPending.id).limit(BATCHES_AT_ONCE)
    found = list(session.scalars(query))
    session.execute(
        delete(LogPending).where(LogPending.id.in_([one.id for one in found])),
        execution_options={"synchronize_session": False},
    )
    session.expunge_all()
    return found


def count_pending(session: Session) -> int:
    """Return how many commitments wait."""
    total = select(func.sum(func.octet_length(LogPending.commitments)))
    return int(session.scalar(total) or 0) // COMMITMENT_BYTES


def unsigned_age(session: Session, signed: Mapping[uuid.UUID, int]) -> float:
    """Return the seconds since the oldest entry that no checkpoint covers was written; 0 without one.

    ``signed`` tells how many leaves of each tenant are covered.
    """
    covered = {"tenants": list(signed), "sizes": list(signed.values())}
    age = session.scalar(_UNSIGNED_AGE, covered)
    return 0.0 if age is None else max(0.0, float(age))


def list_known(session: Session, tenant: uuid.UUID, commitments: Sequence[bytes]) -> set[bytes]:
    """Return those of the commitments that have a place already."""
    query = select(LogLeaf.commitment).where(
        LogLeaf.tenant_id == tenant, LogLeaf.commitment == one_of(commitments)
    )
    return set(session.scalars(query))


def one_of(commitments: Sequence[bytes]) -> ColumnElement[bytes]:
    """Return what one of the commitments equals: as one parameter, of which a statement has 65,535."""
    return func.any(literal(list(commitments), postgresql.ARRAY(postgresql.BYTEA)))


def add_leaves(
    session: Session, tenant: uuid.UUID, frontier: merkle.Frontier, leaves: Sequence[Leaf]
) -> None:
    """Store the leaves and every node that they complete, and let the frontier take them up."""
    nodes: list[dict[str, object]] = []
    for leaf in leaves:
        frontier.add(leaf.hash())
        nodes.extend(
            {"tenant_id": tenant, "level": level, "number": number, "hash": node}
            for level, number, node in frontier.completed(TILE_HEIGHT)
        )
    rows = [{"tenant_id": tenant, **leaf._asdict()} for leaf in leaves]
    if rows:
        session.execute(insert(LogLeaf), rows)
    if nodes:
        session.execute(insert(LogNode), nodes)


def list_notes(session: Session, tenant: uuid.UUID, after: int = -1) -> list[LogCheckpoint]:
    """Return the copies of checkpoints of more leaves than ``after``, the smallest first."""
    query = select(LogCheckpoint).where(LogCheckpoint.tenant_id == tenant, LogCheckpoint.size > after)
    return list(session.scalars(query.order_by(LogCheckpoint.size)))


def newest_note(session: Session, tenant: uuid.UUID) -> int:
    """Return the size in the newest copy of a checkpoint, 0 without one."""
    query = select(func.max(LogCheckpoint.size)).where(LogCheckpoint.tenant_id == tenant)
    return session.scalar(query) or 0


def add_note(session: Session, tenant: uuid.UUID, size: int, note: str) -> None:
    """Keep a copy of a checkpoint, unless there is one."""
    row = {"tenant_id": tenant, "size": size, "note": note}
    session.execute(postgresql.insert(LogCheckpoint).values(row).on_conflict_do_nothing())
