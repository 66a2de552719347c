"""Digests that identify a decoder by its files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def digest_files(root: Path, paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the names (relative to `root`) and contents of files, sorted by name."""
    total = hashlib.sha256()
    for path in sorted(paths):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                content.update(chunk)
        total.update(f"{path.relative_to(root).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def digest_pair(folder: Path) -> str:
    """Return the digest of all files in `av/` and `ar/`, hidden ones excepted."""
    return digest_files(folder, (path for half in ("av", "ar") for path in _files(folder / half)))


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
