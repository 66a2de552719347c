"""Which leaves of a tenant's log surround a period, and the leaves themselves."""

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.evidence.entry import Leaf
from service.store.evidence.tables import LogLeaf, LogPending

_AT_ONCE: Final = 5000


def first_before(session: Session, tenant: uuid.UUID, at: dt.datetime, size: int) -> int:
    """Return the place of a leaf that is older than ``at``, near the first that is not; 0 for none.

    Times of leaves are in order but for some minutes, so halving finds such a leaf by the primary key,
    where a search by time would read the whole log.
    """
    low, high = -1, size  # at `low` it is older, at `high` it is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _time(session, tenant, middle) < at else (low, middle)
    return max(low, 0)


def last_behind(session: Session, tenant: uuid.UUID, at: dt.datetime, known: int) -> int:
    """Return the place of a leaf of ``at`` or later, near the first; ``known`` is the place of one."""
    low, high = -1, known
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _time(session, tenant, middle) < at else (low, middle)
    return high


def _time(session: Session, tenant: uuid.UUID, seq: int) -> dt.datetime:
    query = select(LogLeaf.at).where(LogLeaf.tenant_id == tenant, LogLeaf.seq == seq)
    found = session.scalar(query)
    if found is None:
        raise LookupError(f"entry {seq} of tenant {tenant} is not in the log; see: subtext verify")
    return found


def list_leaves(session: Session, tenant: uuid.UUID, first: int, end: int) -> Iterator[Leaf]:
    """Yield the leaves from ``first`` to before ``end`` by their places."""
    query = (
        select(LogLeaf.seq, LogLeaf.kind, LogLeaf.at, LogLeaf.commitment)
        .where(LogLeaf.tenant_id == tenant, LogLeaf.seq >= first, LogLeaf.seq < end)
        .order_by(LogLeaf.seq)
    )
    for row in session.execute(query.execution_options(yield_per=_AT_ONCE)):
        yield Leaf(*row)


def newest_pending(session: Session, tenant: uuid.UUID) -> int:
    """Return the number of the newest batch that waits for a place; 0 when none waits."""
    return session.scalar(select(func.max(LogPending.id)).where(LogPending.tenant_id == tenant)) or 0


def is_taken_up(session: Session, tenant: uuid.UUID, newest: int) -> bool:
    """Tell whether no batch up to this number waits any more."""
    waiting = select(LogPending.id).where(LogPending.tenant_id == tenant, LogPending.id <= newest)
    return session.scalar(waiting.limit(1)) is None


def oldest_pending(session: Session, tenant: uuid.UUID) -> dt.datetime | None:
    """Return the time of the oldest entry that waits for a place; None when none waits."""
    return session.scalar(select(func.min(LogPending.at)).where(LogPending.tenant_id == tenant))
