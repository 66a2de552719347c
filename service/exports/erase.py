"""Erasing reaches exports: a file that may hold what is erased is deleted, and its export says so."""

import re
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.orm import Session

from service.evidence.bundle.layout import FILES, RowFormat, member_of
from service.exports import files
from service.store.exports import write
from service.store.exports.tables import Export, State

_ID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def erase_exports(
    session: Session, folder: Path, tenant: uuid.UUID, ids: Collection[uuid.UUID]
) -> list[uuid.UUID]:
    """Delete the files of a tenant's exports that hold any of these ids; return the exports.

    An id is of an explanation, a sample, a flag, an incident or a capture: whatever a row names. One that
    is still being made is erased as well: it may hold rows from before. The caller commits, and behind the
    erasure of the rows, so that no export that begins later finds them. A file is deleted at once.
    """
    wanted = frozenset(str(one).encode() for one in ids)
    erased = [one for one in write.list_living(session, tenant) if _holds(folder, one, wanted)]
    write.mark_erased(session, [one.id for one in erased])
    session.flush()
    for one in erased:
        files.remove(folder, tenant, one.id)
    return [one.id for one in erased]


def _holds(folder: Path, export: Export, wanted: frozenset[bytes]) -> bool:
    if not wanted or export.state != State.READY:
        return bool(wanted) and export.state == State.RUNNING
    path = files.path_of(folder, export.tenant_id, export.id)
    try:
        with zipfile.ZipFile(path) as opened:
            for name in opened.namelist():
                if any(not wanted.isdisjoint(_ID.findall(line)) for line in _lines(opened, name)):
                    return True
    except FileNotFoundError:
        return False
    except (zipfile.BadZipFile, OSError, ValueError):
        return True  # what cannot be read is not kept either
    return False


def _lines(opened: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Yield what a member's rows say, one after the other; nothing of members without rows."""
    if name in {*FILES.values(), "incidents.ndjson"}:
        with opened.open(name) as member:
            yield from member
    elif name in {member_of(kind, RowFormat.PARQUET) for kind in FILES}:
        from service.evidence.bundle import parquet

        with opened.open(name) as member, tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(member, copy)
            yield from parquet.Rows(copy).payloads()
