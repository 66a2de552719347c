"""Delete the files of exports whose time is over, and those that nobody knows any more."""

import time
import uuid
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from service.exports import files
from service.store.exports import write

_ABANDONED_SECONDS: Final = 86_400.0
"""A part of a file that nobody wrote to for as long belongs to a job that was given up."""


def expire(sessions: sessionmaker[Session], folder: Path) -> int:
    """Delete what is over; return how many exports expired."""
    with sessions.begin() as session:
        expired = write.take_expired(session)
    for tenant, export in expired:
        files.remove(folder, tenant, export)
    _sweep(folder)
    return len(expired)


def _sweep(folder: Path) -> None:
    for part in folder.glob(f"*/*{files.PART}"):
        if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS and _is_id(part.stem):
            part.unlink(missing_ok=True)


def _is_id(name: str) -> bool:
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True
