"""Where an explanation stands in its tenant's log, with the proof that a signed tree holds it."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.evidence import merkle
from service.evidence.entry import Leaf, commit
from service.evidence.payloads import explanation_payload
from service.store.base import values_of
from service.store.evidence import tree
from service.store.evidence.tables import LogCheckpoint, LogLeaf
from service.store.tables import ConceptMatch, Explanation, Sample


class Proof(NamedTuple):
    """An entry and what leads from it to the root of a signed tree (RFC 9162, 2.1.3)."""

    leaf: Leaf
    path: Sequence[bytes]
    size: int
    """Leaves of the tree, as in the newest checkpoint."""
    root: bytes
    note: str
    """The checkpoint."""


def newest_checkpoint(session: Session, tenant: uuid.UUID) -> LogCheckpoint | None:
    """Return the copy of a tenant's newest checkpoint."""
    query = select(LogCheckpoint).where(LogCheckpoint.tenant_id == tenant)
    return session.scalar(query.order_by(LogCheckpoint.size.desc()).limit(1))


def explanation_commitment(session: Session, explanation_id: uuid.UUID) -> bytes | None:
    """Return the commitment to an explanation as it is now; None when it is from before the log.

    Raises LookupError when no such explanation is met.
    """
    query = select(Explanation, Sample).join(Sample, Sample.id == Explanation.sample_id)
    found = session.execute(query.where(Explanation.id == explanation_id)).one_or_none()
    if found is None:
        raise LookupError
    explanation, sample = found
    if explanation.log_salt is None:
        return None
    matches = session.scalars(select(ConceptMatch).where(ConceptMatch.explanation_id == explanation_id))
    payload = explanation_payload(values_of(explanation), values_of(sample), list(map(values_of, matches)))
    return commit(explanation.log_salt, payload)


def prove(session: Session, tenant: uuid.UUID, commitment: bytes) -> Proof | None:
    """Return the proof that the newest checkpoint covers a commitment; None when it does not.

    Raises DamagedLogError when the tree lacks a part of it.
    """
    query = select(LogLeaf).where(LogLeaf.tenant_id == tenant, LogLeaf.commitment == commitment)
    found, signed = session.scalar(query), newest_checkpoint(session, tenant)
    if found is None or signed is None or found.seq >= signed.size:
        return None
    stored = tree.Tree(session, tenant)
    return Proof(
        Leaf(found.seq, found.kind, found.at, found.commitment),
        merkle.inclusion_proof(stored, found.seq, signed.size),
        signed.size,
        merkle.frontier_of(stored, signed.size).root(),
        signed.note,
    )
