"""Commit to rows in the log, in the transaction that stores them. The caller commits.

It costs that transaction one row a kind. A place in the log comes later, from the sequencer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.evidence import entry
from service.store.evidence.tables import LogPending


def append(
    session: Session, kind: str, payloads: Sequence[Mapping[str, Any]], salts: Sequence[bytes] | None = None
) -> list[bytes]:
    """Commit to each payload and return the salts, which must be stored with the rows.

    ``kind`` and payloads are `service.evidence.payloads`'. Give ``salts`` where the rows have theirs.
    """
    used = [entry.new_salt() for _ in payloads] if salts is None else list(salts)
    add_pending(session, kind, [entry.commit(salt, one) for salt, one in zip(used, payloads, strict=True)])
    return used


def add_pending(session: Session, kind: str, commitments: Sequence[bytes]) -> None:
    """Let commitments that are made already wait for their places, in this order."""
    if commitments:
        row = {"kind": kind, "commitments": b"".join(commitments)}
        # Inline: the number of the new row would be asked back, and who writes here may not read.
        session.execute(insert(LogPending).values(row).inline())
