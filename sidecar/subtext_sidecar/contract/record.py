"""The record: one sampled activation on its way from the plugin to the decode workers.

This module is a contract: the plugin, the sidecar and the workers meet only here and in ``streams``.
A record is two byte strings, a msgpack header and the raw vector, which are the two fields of one
stream entry. It holds no pickle, no base64 and no code, and it must import nothing beyond what vLLM
itself brings.
"""

import math
import uuid
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import asdict

from subtext_sidecar.contract.configuration import DIGEST_PATTERN, MAX_REPORTED_CHARACTERS
from subtext_sidecar.contract.counters import Hop, RejectReason
from subtext_sidecar.contract.facts import Count, Name, RequestFacts, RowFacts, has_nul
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, TenantName

VERSION: Final = 1

MAX_HEADER_BYTES: Final = 8192  # a request has up to eight names of 256 bytes
MAX_DIMENSIONS: Final = 65_536
MAX_SCORES: Final = 32
_NAMESPACE: Final = uuid.UUID("8f0c1c8e-2f2e-5d0a-9d2b-6b8c5b0f7a11")
BYTES_PER_VALUE: Final = {"float32": 4, "bfloat16": 2, "float16": 2}


class RecordError(ValueError):
    """A record that must not be used. ``reason`` is a bounded label for metrics and dead letters."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class _OwnFields(RowFacts, frozen=True, kw_only=True):
    """All fields of a header but those of its request."""

    v: int
    model: Name  # served model name
    layer: Count  # K: the vector is the OUTPUT of block K
    norm: float  # L2 norm of the vector
    baseline_probability: float  # that of the random baseline alone; 0 when only the screen chose it
    captured_at: float  # Unix seconds, fixed by the plugin
    dtype: str  # float32 | bfloat16 | float16, little endian
    shape: tuple[int, ...]  # (d_model,)
    tenant: TenantName = DEFAULT_TENANT  # whose engine it was; a record of before names none
    # What the screen measured, by detector.
    scores: dict[str, float] = {}  # noqa: RUF012  # msgspec makes a new one each


class Header(_OwnFields, frozen=True, kw_only=True):
    """What is known about one activation besides its values; in bytes one flat map, see `fields_of`."""

    request: RequestFacts


FIELDS: Final = frozenset((*Header.__struct_fields__, *RequestFacts.__struct_fields__)) - {"request"}
"""Names of the fields that `fields_of` returns."""


class ConfigurationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a process runs of one kind; see `contract.configuration`."""

    kind: str  # a Kind; a reader leaves those out that it does not know
    digest: Annotated[str, msgspec.Meta(pattern=DIGEST_PATTERN)]
    content: Annotated[str, msgspec.Meta(max_length=MAX_REPORTED_CHARACTERS)]
    layer: Count | None = None


MAX_REPORTS: Final = 16
Reports = Annotated[tuple[ConfigurationReport, ...], msgspec.Meta(max_length=MAX_REPORTS)]


class CoverageCount(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative counts of one source in one minute, for one stratum of a tenant's requests.

    Counts only grow within (source, tenant, model, stratum, minute), so a reader keeps the largest value
    it saw and a redelivered or reordered message changes nothing.
    """

    v: int
    source: str  # unique for one process start
    hop: Hop
    model: str
    stratum: str  # a Stratum
    minute: int  # Unix time // 60
    counts: dict[str, int]  # e.g. requests_seen, rows_sampled, rows_shipped, dropped_socket_full
    tenant: TenantName = DEFAULT_TENANT  # whose requests; a message of before names none
    # What the source runs as it says this, in a message of its own without counts. It is no message of
    # another kind, because a reader of before would set that aside as damaged.
    configurations: Reports = ()


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

_encoder = msgspec.msgpack.Encoder()
_DOUBLE_BYTES: Final = 8  # behind their tag, big endian
_own_fields_decoder = msgspec.msgpack.Decoder(_OwnFields)
_request_decoder = msgspec.msgpack.Decoder(RequestFacts)
_coverage_decoder = msgspec.msgpack.Decoder(CoverageCount)


def fields_of(header: Header) -> dict[str, Any]:
    """Return the header's fields with those of its request among them, by name."""
    fields = asdict(header)
    fields |= asdict(fields.pop("request"))
    return fields


def encode_fields(fields: Mapping[str, Any]) -> bytes:
    """Return a header's `fields_of` as msgpack. What they should be is checked where they are decoded."""
    return _encoder.encode(fields)


def encode_scores(names: Sequence[str], values: npt.NDArray[np.float64]) -> list[msgspec.Raw]:
    """Return each row's scores as the msgpack of a header's ``scores``; ``values`` is (rows, names).

    All rows at once, because the same keys again and again would cost more than all else in a header.
    """
    layout = _layout_of_scores(tuple(names))
    rows = np.empty((len(values), len(layout.zeros)), np.uint8)
    rows[:] = layout.zeros
    rows[:, layout.places] = values.astype(">f8").view(np.uint8)
    content, size = rows.tobytes(), len(layout.zeros)
    return [msgspec.Raw(content[at : at + size]) for at in range(0, len(content), size)]


class _ScoresLayout(NamedTuple):
    zeros: npt.NDArray[np.uint8]  # the msgpack of scores that are all 0
    places: npt.NDArray[np.int64]  # in it, of all numbers' bytes


@lru_cache(maxsize=16)
def _layout_of_scores(names: tuple[str, ...]) -> _ScoresLayout:
    """Return what is the same for all rows of a reference: working it out costs more than a small block."""
    zeros = _encoder.encode(dict.fromkeys(names, 0.0))
    stops = [len(zeros)]
    for name in reversed(names[1:]):
        stops.append(stops[-1] - (len(_encoder.encode({name: 0.0})) - 1))  # its map has a head of one byte
    starts = np.array(stops[::-1][: len(names)], np.int64) - _DOUBLE_BYTES
    return _ScoresLayout(
        np.frombuffer(zeros, np.uint8), (starts[:, None] + np.arange(_DOUBLE_BYTES)).reshape(-1)
    )


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
        own = _own_fields_decoder.decode(header_bytes)
        header = Header(request=_request_decoder.decode(header_bytes), **asdict(own))
    except msgspec.ValidationError as error:
        raise RecordError(RejectReason.BAD_FIELD, str(error)) from error
    except UNDECODABLE as error:
        raise RecordError(RejectReason.MALFORMED_HEADER, str(error)) from error
    _check_fields(header)
    _check_vector(header, vector)
    return Record(header, vector)


def sample_id(header: Header) -> uuid.UUID:
    """Return the sample's identity: UUIDv5 of (model, capture, layer, position), and of its tenant.

    A redelivered or recomputed activation has the same identity, which makes storing idempotent. Nothing
    that a client chooses is part of it; in a record of before captures, the request's id is. A capture that
    another tenant's engine repeats is another sample.
    """
    # msgpack is length-prefixed, so ("a", "bc") and ("ab", "c") cannot meet in one name.
    request = header.request
    parts: tuple[str | int, ...] = (
        header.model,
        request.capture_id or request.request_id,
        header.layer,
        header.position,
    )
    if header.tenant != DEFAULT_TENANT:  # samples of before tenants keep their ids
        parts += (header.tenant,)
    return uuid.uuid5(_NAMESPACE, _encoder.encode(parts).hex())


def encode_coverage(count: CoverageCount) -> bytes:
    """Return the coverage count as msgpack."""
    return _encoder.encode(count)


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


class _VersionHeader(msgspec.Struct):
    v: int


_version_decoder = msgspec.msgpack.Decoder(_VersionHeader)


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
    """Check what the fields' types do not demand already."""
    if has_nul(header.request, header) or "\x00" in "".join(header.scores):
        raise RecordError(RejectReason.BAD_FIELD, "text fields must not contain NUL")
    if not 0.0 <= header.baseline_probability <= header.probability:
        raise RecordError(
            RejectReason.BAD_FIELD,
            f"baseline_probability {header.baseline_probability} is outside [0, probability]",
        )
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
