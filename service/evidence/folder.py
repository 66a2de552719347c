"""The folder of checkpoints, a file a day for each tenant, which no login of the database can write.

A note is whole or it is the last of its file: then whoever signs completes it, for the same tree is signed
with the same bytes.
"""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

_NOTE: Final = re.compile(rb"[^\n]+\n[^\n]+\n[^\n]+\n\n(?:\xe2\x80\x94 [^\n]+\n)+")
_SUFFIX: Final = ".notes"


class FolderError(ValueError):
    """The folder does not hold what it should; the message names the file."""


class Notes(NamedTuple):
    """What a tenant's files hold."""

    whole: Sequence[str]
    """Complete notes, the oldest first."""
    rest: bytes
    """What stands behind the last of them, the beginning of a note when its writer was killed."""
    file: Path | None
    """The newest file."""


def read(folder: Path, tenant: UUID) -> Notes:
    """Return what is in a tenant's files; FolderError for text between notes that is none."""
    whole: list[str] = []
    rest, newest = b"", None
    for file in _files(folder, tenant):
        if rest:
            raise FolderError(f"{newest}: it ends with a part of a note, and {file.name} follows")
        newest = file
        found, rest = _split(file.read_bytes())
        whole.extend(found)
    return Notes(whole, rest, newest)


def tenants(folder: Path) -> list[UUID]:
    """Return the tenants that have files."""
    return sorted(UUID(one.name) for one in folder.iterdir() if one.is_dir() and _is_id(one.name))


def append(folder: Path, tenant: UUID, note: str, now: datetime) -> None:
    """Append a note to the file of the day, or complete it; it is on the disk when this returns.

    The last note is not appended again: another sequencer may have been first. Raises FolderError when the
    file ends with the beginning of another note.
    """
    newest = max(_files(folder, tenant), default=None)
    whole, rest = ([], b"") if newest is None else _split(newest.read_bytes())
    if newest is not None and rest:
        if not note.encode().startswith(rest):
            raise torn(newest)
        _write(newest, note.encode()[len(rest) :])
        return
    if whole and whole[-1] == note:
        return
    place = folder / str(tenant)
    if not place.exists():
        place.mkdir()
        _sync(folder)
    today = place / f"{now.astimezone(UTC):%Y-%m-%d}{_SUFFIX}"
    # A clock that was set back must not put it before older ones.
    file = max(today, newest) if newest is not None else today
    is_new = not file.exists()
    _write(file, note.encode())
    if is_new:
        _sync(place)


def torn(file: Path | None) -> FolderError:
    """Return what to raise of a file that ends with the beginning of a note that never was."""
    return FolderError(f"{file}: it ends with a part of a note that was never signed; restore the file")


def _write(file: Path, note: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(note)
        opened.flush()  # all of it, or it raises, as on a full disk
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path, tenant: UUID) -> Iterator[Path]:
    yield from sorted((folder / str(tenant)).glob(f"*{_SUFFIX}"))


def _split(written: bytes) -> tuple[list[str], bytes]:
    found, at = [], 0
    while match := _NOTE.match(written, at):
        found.append(match.group().decode(errors="replace"))
        at = match.end()
    return found, written[at:]


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
