"""The block: the sampled rows of one engine step on their way from the plugin to the sidecar.

Two byte strings, a msgpack header and the raw vectors one after another: one message for all rows,
of which the sidecar makes a record each. What is known of a request is there once, however many
rows it has. No pickle, no code, and no import beyond what vLLM itself brings.
"""

import math
import zlib
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.counters import RejectReason, Stratum
from subtext_sidecar.contract.facts import Count, Name, RequestFacts, RowFacts, has_nul
from subtext_sidecar.contract.record import (
    BYTES_PER_VALUE,
    MAX_DIMENSIONS,
    UNDECODABLE,
    RecordError,
    to_float32,
)
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, TenantName
from subtext_sidecar.local import block_v1

VERSION: Final = 2
MAX_ROWS: Final = 1024  # rows in one block
MAX_BLOCK_HEADER_BYTES: Final = 1 << 22  # above MAX_ROWS requests with the longest names
# Requests of others are never sampled.
_STRATA: Final = frozenset({Stratum.UNIFORM, Stratum.OPT_IN, Stratum.CANARY})


class BlockHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the rows besides their values."""

    v: int
    model: Name  # served model name
    layer: Count  # K: the vectors are the OUTPUT of block K
    dtype: str  # float32 | bfloat16 | float16, little endian
    d_model: int
    captured_at: float  # Unix seconds
    requests: list[RequestFacts]  # distinct
    request: list[int]  # of each row: index into requests
    rows: list[RowFacts]  # their probability and reason are those of the plugin's policy
    tenant: TenantName = DEFAULT_TENANT  # of the engine; a plugin of before names none


class Block(NamedTuple):
    """A validated block. Its values are not checked for finiteness: that is each record's own."""

    header: BlockHeader
    vectors: bytes

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.header.rows)

    def values(self) -> npt.NDArray[np.float32]:
        """Return the vectors as float32, shape (rows, d_model)."""
        return to_float32(self.vectors, self.header.dtype).reshape(len(self), self.header.d_model)

    def row_bytes(self, row: int) -> bytes:
        """Return one row's raw bytes."""
        size = BYTES_PER_VALUE[self.header.dtype] * self.header.d_model
        return self.vectors[row * size : (row + 1) * size]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BlockHeader)


class _VersionHeader(msgspec.Struct):
    v: int


_version_decoder = msgspec.msgpack.Decoder(_VersionHeader)


def checksums(vectors: bytes, rows: int) -> list[int]:
    """Return the CRC-32 of each of the rows that the bytes are divided into."""
    content, size = memoryview(vectors), len(vectors) // rows
    return [zlib.crc32(content[row * size : (row + 1) * size]) for row in range(rows)]


def encode_block(header: BlockHeader) -> bytes:
    """Return the header as msgpack."""
    return _encoder.encode(header)


def decode_block(header_bytes: bytes, vectors: bytes) -> Block:
    """Validate both parts and return the block, or raise RecordError with the first reason that fails."""
    if len(header_bytes) > MAX_BLOCK_HEADER_BYTES:
        raise RecordError(
            RejectReason.OVERSIZED,
            f"block header has {len(header_bytes)} bytes, limit {MAX_BLOCK_HEADER_BYTES}",
        )
    header = _decode_header(header_bytes)
    _check_rows(header)
    _check_vectors(header, vectors)
    return Block(header, vectors)


def _decode_header(header_bytes: bytes) -> BlockHeader:
    try:
        header = _decoder.decode(header_bytes)
    except msgspec.ValidationError as error:
        return _decode_old(header_bytes, error)
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    if header.v != VERSION:
        raise _wrong_version(header.v)
    return header


def _decode_old(header_bytes: bytes, invalid: msgspec.ValidationError) -> BlockHeader:
    """Return the header if it is a valid one of version 1; ``invalid`` is what else is wrong with it."""
    try:
        version = _version_decoder.decode(header_bytes).v
        if version == block_v1.VERSION:
            return msgspec.convert(block_v1.upgraded(header_bytes) | {"v": VERSION}, BlockHeader)
    except (*UNDECODABLE, ValueError) as error:  # a ValidationError among them
        raise RecordError(RejectReason.BAD_FIELD, str(error)) from error
    if version != VERSION:
        raise _wrong_version(version)
    raise RecordError(RejectReason.BAD_FIELD, str(invalid)) from invalid


def _wrong_version(version: int) -> RecordError:
    return RecordError(
        RejectReason.WRONG_VERSION,
        f"block version {version}, this reader knows {block_v1.VERSION} and {VERSION}",
    )


def _check_rows(header: BlockHeader) -> None:
    """Check what the fields' types do not demand already."""
    rows = len(header.rows)
    if not 0 < rows <= MAX_ROWS:
        raise RecordError(
            RejectReason.OVERSIZED if rows else RejectReason.BAD_FIELD,
            f"block has {rows} rows, limit {MAX_ROWS}",
        )
    if len(header.request) != rows:
        raise RecordError(RejectReason.BAD_FIELD, "request and rows of the block differ in length")
    if not 0 <= min(header.request) <= max(header.request) < len(header.requests):
        raise RecordError(RejectReason.BAD_FIELD, "request points outside requests")
    if not math.isfinite(header.captured_at):
        raise RecordError(RejectReason.NOT_FINITE, "captured_at must be finite")
    if "\x00" in header.model or has_nul(*header.requests, *header.rows):
        raise RecordError(RejectReason.BAD_FIELD, "text fields must not contain NUL")
    if not {request.stratum for request in header.requests} <= _STRATA:
        raise RecordError(RejectReason.BAD_FIELD, f"strata are not among {sorted(_STRATA)}")


def _check_vectors(header: BlockHeader, vectors: bytes) -> None:
    if header.dtype not in BYTES_PER_VALUE:
        raise RecordError(
            RejectReason.BAD_FIELD, f"dtype {header.dtype!r} is not one of {sorted(BYTES_PER_VALUE)}"
        )
    if not 0 < header.d_model <= MAX_DIMENSIONS:
        raise RecordError(RejectReason.OVERSIZED, f"d_model {header.d_model}, limit {MAX_DIMENSIONS}")
    expected = len(header.rows) * header.d_model * BYTES_PER_VALUE[header.dtype]
    if len(vectors) != expected:
        raise RecordError(
            RejectReason.BAD_LENGTH, f"vectors have {len(vectors)} bytes, expected {expected}"
        )
    if checksums(vectors, len(header.rows)) != [row.checksum for row in header.rows]:
        raise RecordError(RejectReason.BAD_CHECKSUM, "CRC-32 of a row differs from the header's")
