"""Commit to rows in the log, in the transaction that stores them. The caller commits.

It costs that transaction one row a kind. A place in the log comes later, from the sequencer.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.store.evidence.tables import LogPending
from service.store.tenants import scope


def append(
    session: Session,
    kind: str,
    payloads: Sequence[Mapping[str, Any]],
    salts: Sequence[bytes] | None = None,
    *,
    tenant: uuid.UUID | None = None,
) -> list[bytes]:
    """Commit to each payload and return the salts, which must be stored with the rows.

    ``kind`` and payloads are `service.evidence.payloads`'. Give ``salts`` where the rows have theirs, and
    ``tenant`` where it is not the transaction's log.
    """
    used = [entry.new_salt() for _ in payloads] if salts is None else list(salts)
    commitments = [entry.commit(salt, one) for salt, one in zip(used, payloads, strict=True)]
    add_pending(session, kind, commitments, tenant=tenant)
    return used


def add_pending(
    session: Session, kind: str, commitments: Sequence[bytes], *, tenant: uuid.UUID | None = None
) -> None:
    """Let commitments that are made already wait for their places, in this order; see `append`."""
    if commitments:
        row = {"kind": kind, "commitments": b"".join(commitments)}
        # Inline: the number of the new row would be asked back, and who writes here may not read.
        statement = insert(LogPending).values(row).inline()
        if tenant is None:
            session.execute(statement)
            return
        with scope.meanwhile(session, tenant):  # nobody may write down for whom a commitment is made
            session.execute(statement)
