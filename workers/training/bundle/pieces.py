"""Split a folder into pieces of bounded size, with a manifest of their hashes.

Uses only the standard library, because the unpacking machine may not have the dependencies yet.
"""

import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

MANIFEST = "manifest.json"
_VERSION = 1
_BLOCK = 1 << 20


class BundleError(ValueError):
    """The bundle is incomplete or corrupt, or does not match this run."""


def write_pieces(folder: Path, out: Path, *, piece_bytes: int) -> list[Path]:
    """Write a folder's files as pieces and a manifest into `out`, replacing older pieces."""
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("piece-*.bin"), out / MANIFEST):
        old.unlink(missing_ok=True)
    with tempfile.TemporaryFile() as archive:
        files = _write_archive(folder, archive)
        archive.seek(0)
        pieces: list[dict[str, Any]] = []
        while content := archive.read(piece_bytes):
            name = f"piece-{len(pieces):02d}.bin"
            (out / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            pieces.append({"name": name, "bytes": len(content), "sha256": digest})
    manifest = {"version": _VERSION, "pieces": pieces, "files": files}
    # The manifest comes last, because its presence means that the bundle is complete.
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return [out / piece["name"] for piece in pieces]


def join_pieces(folder: Path, into: Path) -> None:
    """Verify every piece, then unpack the folder into `into`, overwriting existing files.

    Raises BundleError naming every missing or changed piece before anything is written.
    """
    pieces = json.loads(read_manifest(folder))["pieces"]
    wrong = [f"{piece['name']} {fault}" for piece in pieces if (fault := _fault(folder, piece))]
    if wrong:
        raise BundleError(f"{folder}: {'; '.join(wrong)}; bring the piece again")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as archive:
        for piece in pieces:
            with (folder / piece["name"]).open("rb") as file:
                shutil.copyfileobj(file, archive, _BLOCK)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            tar.extractall(into, filter="data")


def read_manifest(folder: Path) -> str:
    """Return the text of a bundle's manifest; BundleError if missing, invalid or of another version."""
    path = folder / MANIFEST
    if not path.exists():
        raise BundleError(f"{folder}: no {MANIFEST}; bring it with the first piece")
    text = path.read_text()
    try:
        version = json.loads(text)["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: not the manifest of a bundle") from error
    if version != _VERSION:
        raise BundleError(f"{path}: version {version}, but this code reads version {_VERSION}")
    return text


def _write_archive(folder: Path, archive: IO[bytes]) -> dict[str, int]:
    files = {}
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            files[name] = path.stat().st_size
            tar.add(path, arcname=name, filter=_anonymous)
    return files


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop owner, mode and time, so that equal files give equal pieces."""
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info


def _fault(folder: Path, piece: dict[str, Any]) -> str:
    path = folder / piece["name"]
    if not path.exists():
        return "is missing"
    if path.stat().st_size != piece["bytes"]:
        return f"has {path.stat().st_size} bytes instead of {piece['bytes']}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == piece["sha256"] else "is not what was packed (its sha256 differs)"
