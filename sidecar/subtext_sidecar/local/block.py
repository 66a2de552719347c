"""The block: the sampled rows of one engine step on their way from the plugin to the sidecar.

Two byte strings, a msgpack header in columns and the raw vectors one after another, so that the
engine's process spends no time on single rows: the sidecar makes a record of each. No pickle, no
code, and no import beyond what vLLM itself brings.
"""

import math
import zlib
from collections.abc import Sized
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.counters import RejectReason, Stratum
from subtext_sidecar.contract.record import (
    BYTES_PER_VALUE,
    MAX_DIMENSIONS,
    UNDECODABLE,
    VERSION,
    RecordError,
    to_float32,
)

MAX_ROWS: Final = 1024  # rows in one block
MAX_BLOCK_HEADER_BYTES: Final = 1 << 20
_STRATA: Final = frozenset({Stratum.UNIFORM, Stratum.OPT_IN})  # requests of others are never sampled


class BlockHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the rows besides their values. Columns have one entry a row."""

    v: int
    model: str  # served model name
    layer: int  # K: the vectors are the OUTPUT of block K
    dtype: str  # float32 | bfloat16 | float16, little endian
    d_model: int
    captured_at: float  # Unix seconds
    request_ids: list[str]  # external ids, distinct
    strata: list[str]  # one a request: Stratum.UNIFORM or OPT_IN
    request: list[int]  # index into request_ids
    position: list[int]
    token_id: list[int]
    is_prefill: list[bool]
    probability: list[float]  # inclusion probability of the row by the plugin's policy
    reason: list[str]
    checksum: list[int]  # CRC-32 of the row's bytes, which its record carries on


class Block(NamedTuple):
    """A validated block. Its values are not checked for finiteness: that is each record's own."""

    header: BlockHeader
    vectors: bytes

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.header.position)

    def values(self) -> npt.NDArray[np.float32]:
        """Return the vectors as float32, shape (rows, d_model)."""
        return to_float32(self.vectors, self.header.dtype).reshape(len(self), self.header.d_model)

    def row_bytes(self, row: int) -> bytes:
        """Return one row's raw bytes."""
        size = BYTES_PER_VALUE[self.header.dtype] * self.header.d_model
        return self.vectors[row * size : (row + 1) * size]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BlockHeader)


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
    try:
        header = _decoder.decode(header_bytes)
    except msgspec.ValidationError as error:
        raise RecordError(RejectReason.BAD_FIELD, str(error)) from error
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    if header.v != VERSION:
        raise RecordError(
            RejectReason.WRONG_VERSION, f"block version {header.v}, this reader knows {VERSION}"
        )
    _check_columns(header)
    _check_vectors(header, vectors)
    return Block(header, vectors)


def _check_columns(header: BlockHeader) -> None:
    rows = len(header.position)
    if not 0 < rows <= MAX_ROWS:
        raise RecordError(
            RejectReason.OVERSIZED if rows else RejectReason.BAD_FIELD,
            f"block has {rows} rows, limit {MAX_ROWS}",
        )
    columns: tuple[Sized, ...] = (
        header.request,
        header.token_id,
        header.is_prefill,
        header.probability,
        header.reason,
        header.checksum,
    )
    if set(map(len, columns)) != {rows} or len(header.strata) != len(header.request_ids):
        raise RecordError(RejectReason.BAD_FIELD, "columns of the block differ in length")
    if not 0 <= min(header.request) <= max(header.request) < len(header.request_ids):
        raise RecordError(RejectReason.BAD_FIELD, "request points outside request_ids")
    if not math.isfinite(header.captured_at):
        raise RecordError(RejectReason.NOT_FINITE, "captured_at must be finite")
    if header.layer < 0 or min(header.position) < 0 or min(header.token_id) < 0:
        raise RecordError(RejectReason.BAD_FIELD, "layer, position and token_id must not be negative")
    probabilities = header.probability
    # The sum is NaN when one of them is, which least and greatest need not show.
    if not (min(probabilities) > 0.0 and max(probabilities) <= 1.0) or math.isnan(sum(probabilities)):
        raise RecordError(RejectReason.BAD_FIELD, "probability is outside (0, 1]")
    _check_texts(header)


def _check_texts(header: BlockHeader) -> None:
    if not set(header.strata) <= _STRATA:
        raise RecordError(RejectReason.BAD_FIELD, f"strata are not among {sorted(_STRATA)}")
    texts = (header.model, *header.request_ids)
    if not all(texts):
        raise RecordError(RejectReason.BAD_FIELD, "model and request_ids must not be empty")
    if "\x00" in "".join((*texts, *header.reason)):
        raise RecordError(RejectReason.BAD_FIELD, "text fields must not contain NUL")


def _check_vectors(header: BlockHeader, vectors: bytes) -> None:
    if header.dtype not in BYTES_PER_VALUE:
        raise RecordError(
            RejectReason.BAD_FIELD, f"dtype {header.dtype!r} is not one of {sorted(BYTES_PER_VALUE)}"
        )
    if not 0 < header.d_model <= MAX_DIMENSIONS:
        raise RecordError(RejectReason.OVERSIZED, f"d_model {header.d_model}, limit {MAX_DIMENSIONS}")
    expected = len(header.position) * header.d_model * BYTES_PER_VALUE[header.dtype]
    if len(vectors) != expected:
        raise RecordError(
            RejectReason.BAD_LENGTH, f"vectors have {len(vectors)} bytes, expected {expected}"
        )
    if checksums(vectors, len(header.position)) != header.checksum:
        raise RecordError(RejectReason.BAD_CHECKSUM, "CRC-32 of a row differs from the header's")
