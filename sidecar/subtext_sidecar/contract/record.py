"""The record: one sampled activation on its way from the plugin to the decode workers.

This module is a contract: the plugin, the sidecar and the workers meet only here and in ``streams``.
A record is two byte strings, a msgpack header and the raw vector, which are the two fields of one
stream entry. It holds no pickle, no base64 and no code, and it must import nothing beyond what vLLM
itself brings.
"""

import math
import uuid
import zlib
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.counters import Hop, RejectReason

VERSION: Final = 1

MAX_HEADER_BYTES: Final = 4096
MAX_DIMENSIONS: Final = 65_536
MAX_SCORES: Final = 32
_NAMESPACE: Final = uuid.UUID("8f0c1c8e-2f2e-5d0a-9d2b-6b8c5b0f7a11")
BYTES_PER_VALUE: Final = {"float32": 4, "bfloat16": 2, "float16": 2}

Phase = Literal["prefill", "decode"]


class RecordError(ValueError):
    """A record that must not be used. ``reason`` is a bounded label for metrics and dead letters."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one activation besides its values."""

    v: int
    model: str  # served model name
    request_id: str  # external id (X-Request-Id), never the engine's suffixed one
    stratum: str  # of the request: Stratum.UNIFORM or OPT_IN
    layer: int  # K: the vector is the OUTPUT of block K
    position: int  # token position in the request, 0 is the first prompt token
    token_id: int  # the token at that position
    phase: Phase
    norm: float  # L2 norm of the vector
    probability: float  # inclusion probability of this row by whatever reason, in (0, 1]
    baseline_probability: float  # that of the random baseline alone; 0 when only the screen chose it
    reason: str  # why it was chosen, e.g. "decode", or "screen_anomaly" when only the screen did
    captured_at: float  # Unix seconds, fixed by the plugin
    dtype: str  # float32 | bfloat16 | float16, little endian
    shape: tuple[int, ...]  # (d_model,)
    checksum: int  # CRC-32 of the vector bytes
    scores: dict[str, float] = {}  # what the screen measured, by detector; a new dict each


class CoverageCount(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative counts of one source in one minute, for one stratum of requests.

    Counts only grow within (source, model, stratum, minute), so a reader keeps the largest value
    it saw and a redelivered or reordered message changes nothing.
    """

    v: int
    source: str  # unique for one process start
    hop: Hop
    model: str
    stratum: str  # a Stratum
    minute: int  # Unix time // 60
    counts: dict[str, int]  # e.g. requests_seen, rows_sampled, rows_shipped, dropped_socket_full


NO_SCORES: Final = msgspec.Raw(msgspec.msgpack.encode({}))


class Record(NamedTuple):
    """A validated record: header plus the vector's raw bytes."""

    header: Header
    vector: bytes

    def values(self) -> npt.NDArray[np.float32]:
        """Return the vector as float32, shape (d_model,)."""
        return to_float32(self.vector, self.header.dtype)


# What msgspec raises for bytes that are not msgpack, for text that is not UTF-8 and for nesting
# without end. Each is a bad message, never a reason to stop.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_header_encoder = msgspec.msgpack.Encoder()
_DOUBLE_BYTES: Final = 8  # behind their tag, big endian
_header_decoder = msgspec.msgpack.Decoder(Header)
_coverage_decoder = msgspec.msgpack.Decoder(CoverageCount)


def encode_header(header: Header) -> bytes:
    """Return the header as msgpack."""
    return _header_encoder.encode(header)


def encode_scores(names: Sequence[str], values: npt.NDArray[np.float64]) -> list[msgspec.Raw]:
    """Return each row's scores as the msgpack of a header's ``scores``; ``values`` is (rows, names).

    All rows at once, because the same keys again and again would cost more than all else in a header.
    """
    one = _header_encoder.encode(dict.fromkeys(names, 0.0))
    rows = np.tile(np.frombuffer(one, np.uint8), (len(values), 1))
    numbers = values.astype(">f8").view(np.uint8).reshape(len(values), len(names), _DOUBLE_BYTES)
    stop = len(one)
    for column in reversed(range(len(names))):
        rows[:, stop - _DOUBLE_BYTES : stop] = numbers[:, column]
        stop -= len(_header_encoder.encode({names[column]: 0.0})) - 1  # its map has a head of one byte
    content, size = rows.tobytes(), len(one)
    return [msgspec.Raw(content[at : at + size]) for at in range(0, len(content), size)]


def checksum(vector: bytes | memoryview) -> int:
    """Return the CRC-32 that a header must carry for these vector bytes."""
    return zlib.crc32(vector)


def decode(header_bytes: bytes, vector: bytes) -> Record:
    """Validate both parts and return the record.

    Checks, in order: header size and syntax, version, field ranges, vector length, checksum,
    finiteness. Raises RecordError with the first reason that fails.
    """
    if len(header_bytes) > MAX_HEADER_BYTES:
        raise RecordError(
            RejectReason.OVERSIZED, f"header has {len(header_bytes)} bytes, limit {MAX_HEADER_BYTES}"
        )
    _check_version(header_bytes)
    try:
        header = _header_decoder.decode(header_bytes)
    except msgspec.ValidationError as error:
        raise RecordError(RejectReason.BAD_FIELD, str(error)) from error
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    _check_fields(header)
    _check_vector(header, vector)
    return Record(header, vector)


def sample_id(header: Header) -> uuid.UUID:
    """Return the sample's identity: UUIDv5 of (model, request, layer, position).

    A redelivered or recomputed activation has the same identity, which makes storing idempotent.
    """
    # msgpack is length-prefixed, so ("a", "bc") and ("ab", "c") cannot meet in one name.
    parts = (header.model, header.request_id, header.layer, header.position)
    return uuid.uuid5(_NAMESPACE, _header_encoder.encode(parts).hex())


def encode_coverage(count: CoverageCount) -> bytes:
    """Return the coverage count as msgpack."""
    return _header_encoder.encode(count)


def decode_coverage(payload: bytes) -> CoverageCount:
    """Return the coverage count, or raise RecordError."""
    try:
        count = _coverage_decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise RecordError(RejectReason.BAD_FIELD, str(error)) from error
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    if count.v != VERSION:
        raise RecordError(
            RejectReason.WRONG_VERSION, f"coverage version {count.v}, this reader knows {VERSION}"
        )
    return count


class _Versioned(msgspec.Struct):
    v: int


_version_decoder = msgspec.msgpack.Decoder(_Versioned)


def _check_version(header_bytes: bytes) -> None:
    # Read alone and first: a newer version may have fields that this reader would misjudge.
    try:
        version = _version_decoder.decode(header_bytes).v
    except msgspec.ValidationError as error:
        raise RecordError(RejectReason.BAD_FIELD, f"v: {error}") from error
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    if version != VERSION:
        raise RecordError(
            RejectReason.WRONG_VERSION, f"record version {version}, this reader knows {VERSION}"
        )


def _check_fields(header: Header) -> None:
    _check_texts(header)
    _check_probabilities(header)
    if min(header.layer, header.position, header.token_id) < 0:
        raise RecordError(RejectReason.BAD_FIELD, "layer, position and token_id must not be negative")
    if not all(map(math.isfinite, (header.norm, header.captured_at, *header.scores.values()))):
        raise RecordError(RejectReason.NOT_FINITE, "norm, captured_at and scores must be finite")
    if header.dtype not in BYTES_PER_VALUE:
        raise RecordError(
            RejectReason.BAD_FIELD, f"dtype {header.dtype!r} is not one of {sorted(BYTES_PER_VALUE)}"
        )
    if len(header.shape) != 1 or header.shape[0] <= 0:
        raise RecordError(RejectReason.BAD_FIELD, f"shape {header.shape} is not (d_model,)")
    if header.shape[0] > MAX_DIMENSIONS:
        raise RecordError(RejectReason.OVERSIZED, f"d_model {header.shape[0]}, limit {MAX_DIMENSIONS}")
    if len(header.scores) > MAX_SCORES:
        raise RecordError(RejectReason.OVERSIZED, f"{len(header.scores)} scores, limit {MAX_SCORES}")


def _check_texts(header: Header) -> None:
    if not header.model or not header.request_id or not header.stratum:
        raise RecordError(RejectReason.BAD_FIELD, "model, request_id and stratum must not be empty")
    texts = (header.model, header.request_id, header.stratum, header.reason, *header.scores)
    if any("\x00" in text for text in texts):
        raise RecordError(RejectReason.BAD_FIELD, "text fields must not contain NUL")


def _check_probabilities(header: Header) -> None:
    if not 0.0 < header.probability <= 1.0:
        raise RecordError(RejectReason.BAD_FIELD, f"probability {header.probability} is outside (0, 1]")
    if not 0.0 <= header.baseline_probability <= header.probability:
        raise RecordError(
            RejectReason.BAD_FIELD,
            f"baseline_probability {header.baseline_probability} is outside [0, probability]",
        )


def _check_vector(header: Header, vector: bytes) -> None:
    expected = header.shape[0] * BYTES_PER_VALUE[header.dtype]
    if len(vector) != expected:
        raise RecordError(
            RejectReason.BAD_LENGTH, f"vector has {len(vector)} bytes, header says {expected}"
        )
    if checksum(vector) != header.checksum:
        raise RecordError(RejectReason.BAD_CHECKSUM, "vector bytes differ from what the plugin sent")
    if not np.isfinite(to_float32(vector, header.dtype)).all():
        raise RecordError(RejectReason.NOT_FINITE, "vector has NaN or infinite values")


def to_float32(vector: bytes, dtype: str) -> npt.NDArray[np.float32]:
    """Return raw values of one of BYTES_PER_VALUE's types as float32, flat."""
    if dtype == "bfloat16":
        # numpy has no bfloat16: it is the upper half of a float32. Shifted in place: half the time.
        wide = np.frombuffer(vector, dtype="<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return np.frombuffer(vector, dtype="<f4" if dtype == "float32" else "<f2").astype(np.float32)
