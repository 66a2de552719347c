"""The zip that a bundle is: written member by member, and read so strictly that it says one thing only."""

import hashlib
import json
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Final, NamedTuple, Self

from service.evidence.entry import canonical

_NAME: Final = re.compile(r"[a-z_]+(\.schema)?\.(json|ndjson|parquet)|schemas/[a-z_]+\.json")
_NEVER_CHANGES: Final = (1980, 1, 1, 0, 0, 0)
_HEADER: Final = struct.Struct("<26sHH")
"""Of a member, as it stands before it: the last two are the lengths of its name and of what is extra."""
_WITH_DESCRIPTOR: Final = 1 << 3
_LONGEST_LINE: Final = 64 << 20
_MOST_MEMBERS: Final = 100
_COMPRESSED: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


class ArchiveError(ValueError):
    """The zip or one of its members cannot be read; `member` and the message say which and why."""

    def __init__(self, member: str, why: str) -> None:
        super().__init__(why)
        self.member = member


class Written(NamedTuple):
    """A member that is written."""

    sha256: str
    bytes: int
    rows: int
    """Lines; 0 of what has none."""


class Writer:
    """Writes members one after the other; each has the same bytes whenever it is written."""

    def __init__(self, file: Path) -> None:
        self._zip = zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED, compresslevel=6)

    def lines(self, name: str, lines: Iterator[bytes]) -> Written:
        """Write a member of lines, none of which ends with a line feed."""
        digest, size, rows = hashlib.sha256(), 0, 0
        with self._zip.open(_info(name), "w", force_zip64=True) as member:
            for line in lines:
                whole = line + b"\n"
                member.write(whole)
                digest.update(whole)
                size, rows = size + len(whole), rows + 1
        return Written(digest.hexdigest(), size, rows)

    def table(self, name: str, schema: Any, lines: Iterator[bytes]) -> Written:
        """Write a member of lines as Parquet, by a schema of `parquet.schema_of`."""
        from service.evidence.bundle import parquet

        info = _info(name)
        info.compress_type = zipfile.ZIP_STORED  # its columns are compressed
        with self._zip.open(info, "w", force_zip64=True) as member:
            sink = _Sink(member)
            rows = parquet.write(sink, schema, lines)
        return Written(sink.digest.hexdigest(), sink.size, rows)

    def whole(self, name: str, content: bytes) -> Written:
        """Write a member of one piece."""
        with self._zip.open(_info(name), "w") as member:
            member.write(content)
        return Written(hashlib.sha256(content).hexdigest(), len(content), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._zip.close()


class _Sink(RawIOBase):
    """Digests and counts what is written to a member."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        self.digest, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, piece: Any) -> int:
        self._member.write(piece)
        self.digest.update(piece)
        self.size += len(piece)
        return len(piece)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _NEVER_CHANGES)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info


def _is_contiguous(file: Path, members: Sequence[zipfile.ZipInfo], end: int) -> bool:
    """Tell whether each member begins where the one before it ends: a stream would be read otherwise."""
    place = 0
    with file.open("rb") as opened:
        for one in sorted(members, key=lambda one: one.header_offset):
            if one.header_offset != place or one.flag_bits & _WITH_DESCRIPTOR:
                return False
            opened.seek(place)
            header = opened.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return False
            _, name, extra = _HEADER.unpack(header)
            place += _HEADER.size + name + extra + one.compress_size
    return place == end


class Archive:
    """A bundle that is there. Its members' names are unique, and it holds nothing else."""

    def __init__(self, file: Path) -> None:
        """Open it; ArchiveError when it is no zip, was cut, or holds what no bundle does."""
        try:
            self._zip = zipfile.ZipFile(file)
        except (*_DAMAGED, ValueError) as error:
            raise ArchiveError(file.name, f"it is no whole zip file: {error}") from error
        try:
            self._check(file)
        except BaseException:
            self._zip.close()
            raise

    def _check(self, file: Path) -> None:
        members = self._zip.infolist()
        if self._zip.comment or not members or len(members) > _MOST_MEMBERS:
            raise ArchiveError(file.name, "the zip has a comment, no member, or too many of them")
        if min(one.header_offset for one in members) != 0:
            raise ArchiveError(file.name, "something stands before the first member of the zip")
        if not _is_contiguous(file, members, self._zip.start_dir):
            raise ArchiveError(file.name, "something stands between the members of the zip")
        seen: set[str] = set()
        for one in members:
            if not _NAME.fullmatch(one.filename) or one.filename in seen:
                raise ArchiveError(one.filename, "no bundle has a member of this name, or it has two")
            if one.date_time != _NEVER_CHANGES or one.comment or one.flag_bits & 1:
                raise ArchiveError(one.filename, "its header is not as bundles are written")
            if one.compress_type not in _COMPRESSED:
                raise ArchiveError(one.filename, "it is compressed in a way that no bundle is")
            seen.add(one.filename)
        self.names = frozenset(seen)

    def read(self, name: str) -> bytes:
        """Return a small member; ArchiveError when it is missing, damaged or too long."""
        found = b"".join(self._pieces(name, most=_LONGEST_LINE))
        if len(found) > _LONGEST_LINE:
            raise ArchiveError(name, f"it is longer than {_LONGEST_LINE} bytes")
        return found

    def lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a member, each with the line feed that ends it; ArchiveError as for `read`."""
        try:
            with self._zip.open(name) as member:
                while line := member.readline(_LONGEST_LINE):
                    if not line.endswith(b"\n"):
                        raise ArchiveError(name, "its last line has no end, or one is too long")
                    yield line
        except KeyError:
            raise ArchiveError(name, "the bundle has no such member") from None
        except _DAMAGED as error:
            raise ArchiveError(name, f"it is damaged: {error}") from error

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a member, in hexadecimal; ArchiveError as for `read`."""
        digest = hashlib.sha256()
        for piece in self._pieces(name):
            digest.update(piece)
        return digest.hexdigest()

    @contextmanager
    def copied(self, name: str) -> Iterator[tuple[BinaryIO, str]]:
        """Open a copy of a member in which one may seek, with its SHA-256; ArchiveError as for `read`."""
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as copy:
            for piece in self._pieces(name):
                digest.update(piece)
                copy.write(piece)
            copy.seek(0)
            yield copy, digest.hexdigest()

    def _pieces(self, name: str, most: int | None = None) -> Iterator[bytes]:
        read = 0
        try:
            with self._zip.open(name) as member:
                while (most is None or read <= most) and (piece := member.read(1 << 20)):
                    read += len(piece)
                    yield piece
        except KeyError:
            raise ArchiveError(name, "the bundle has no such member") from None
        except _DAMAGED as error:
            raise ArchiveError(name, f"it is damaged: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


def written(value: Any) -> bytes:
    """Return JSON as members have it: canonical, so that each value is written in one way."""
    return canonical(value)


def parsed(content: bytes) -> Any:
    """Return what a line or member of JSON says; ValueError unless it is written in the one way."""
    try:
        value = json.loads(content)
        is_canonical = canonical(value) == content
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not is_canonical:
        raise ValueError("it is not written in canonical JSON (RFC 8785)")
    return value
