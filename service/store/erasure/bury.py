"""Find the places of entries in the log, and add the tombstone over them. The caller commits."""

import uuid
from collections.abc import Collection, Iterable
from typing import NamedTuple

from sqlalchemy import insert
from sqlalchemy.dialects.postgresql.ranges import MultiRange, Range
from sqlalchemy.orm import Session

from service.evidence import entry
from service.evidence.payloads import Kind
from service.evidence.tombstones import Reason, count_of, ranges_of, tombstone_payload
from service.store.base import values_of
from service.store.evidence.append import append
from service.store.evidence.log import StoredLog
from service.store.evidence.tables import LogTombstone


class Places(NamedTuple):
    """Where commitments stand in the log."""

    known: dict[bytes, int]
    """Their places. One that is neither here nor waiting has none, as of a row that was tampered with."""
    waiting: frozenset[bytes]
    """Those that have no place yet: a tombstone could not name them, so their rows must wait too."""


def find_places(session: Session, tenant: uuid.UUID, commitments: Collection[bytes]) -> Places:
    """Return the places of a tenant's commitments. The transaction must be READ COMMITTED."""
    log = StoredLog(session, tenant)
    known = {one: leaf.seq for one, leaf in log.find(list(commitments)).items()}
    missing = set(commitments) - known.keys()
    if not missing:
        return Places(known, frozenset())
    waiting = missing & {one for batch in log.pending() for one in batch.commitments}
    # The sequencer may have moved some between the two queries; it never moves one back.
    known |= {one: leaf.seq for one, leaf in log.find(list(missing - waiting)).items()}
    return Places(known, frozenset(waiting))


def bury(session: Session, places: Iterable[int], *, reason: Reason, authority: uuid.UUID) -> int:
    """Add the tombstone over these places and return how many entries it covers; none for no entry."""
    leaves = ranges_of(places)
    if not leaves:
        return 0
    salt = entry.new_salt()
    insertion = insert(LogTombstone).values(
        id=uuid.uuid4(),
        reason=reason,
        authority=authority,
        leaves=MultiRange(Range(first, behind) for first, behind in leaves),
        count=count_of(leaves),
        log_salt=salt,
    )
    stored = values_of(session.scalars(insertion.returning(LogTombstone)).one())
    append(session, Kind.TOMBSTONE, [tombstone_payload(stored | {"leaves": leaves})], [salt])
    return count_of(leaves)
