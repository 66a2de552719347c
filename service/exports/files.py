"""Where an export's file lies: a folder for each tenant, below the one that the settings name."""

import contextlib
import os
import uuid
from hashlib import file_digest
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".zip"
PART: Final = ".part"


def path_of(folder: Path, tenant: uuid.UUID, export: uuid.UUID) -> Path:
    """Return where the file of an export is, or will be."""
    return folder / str(tenant) / f"{export}{_SUFFIX}"


def begin(folder: Path, tenant: uuid.UUID, export: uuid.UUID) -> Path:
    """Return where to write it until it is whole; what a kill left there is gone."""
    whole = path_of(folder, tenant, export)
    whole.parent.mkdir(mode=0o700, exist_ok=True)
    part = whole.with_suffix(PART)
    part.unlink(missing_ok=True)
    return part


def complete(part: Path) -> tuple[Path, int, str]:
    """Give a written file its name; return it with its length and SHA-256 in hexadecimal."""
    with part.open("rb") as opened:
        os.fsync(opened.fileno())
        digest = file_digest(opened, "sha256").hexdigest()
    whole = part.with_suffix(_SUFFIX)
    part.replace(whole)
    return whole, whole.stat().st_size, digest


def remove(folder: Path, tenant: uuid.UUID, export: uuid.UUID) -> None:
    """Delete the file of an export, also one that was never completed."""
    for path in (path_of(folder, tenant, export), path_of(folder, tenant, export).with_suffix(PART)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
