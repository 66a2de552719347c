"""The rows of a block: check each, and make a record of those that go on. Pure."""

import math
from collections import Counter
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from subtext_sidecar.block import Block
from subtext_sidecar.record import (
    MAX_HEADER_BYTES,
    OPT_IN,
    UNDECODABLE,
    UNIFORM,
    UNKNOWN,
    VERSION,
    Header,
    RecordError,
    checksum,
    encode_header,
)


class Rows(NamedTuple):
    """A block with what every later step needs of its values."""

    block: Block
    vectors: npt.NDArray[np.float32]  # (rows, d_model)
    norms: npt.NDArray[np.float64]  # (rows,); not finite where the values are not


class Kept(NamedTuple):
    """A row that goes on, and what its record says about its being chosen."""

    row: int
    probability: float
    baseline_probability: float
    reason: str
    scores: dict[str, float]


class Estimate(NamedTuple):
    """What can still be told about the rows of a block that must not be used."""

    model: str | None
    captured_at: float | None
    strata: Counter[str]  # rows by stratum, UNKNOWN where it does not tell


def measure(block: Block) -> Rows:
    """Return the rows as float32 with their norms."""
    vectors = block.values()
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        norms = np.sqrt(squares.astype(np.float64))
    # A sum of squares is not finite when a value is not, or when finite values are huge: then slowly.
    for row in np.flatnonzero(~np.isfinite(squares)):
        norms[row] = np.linalg.norm(vectors[row].astype(np.float64))
    return Rows(block, vectors, norms)


def strata_of(block: Block) -> list[str]:
    """Return the stratum of each row."""
    strata = block.header.strata
    return [strata[request] for request in block.header.request]


def not_finite(rows: Rows) -> list[int]:
    """Return the rows whose values must not be used."""
    numbers: list[int] = np.flatnonzero(~np.isfinite(rows.norms)).tolist()
    return numbers


def make_record(rows: Rows, kept: Kept) -> tuple[bytes, bytes]:
    """Return a finite row's record, header and vector; raises RecordError when it could not be read."""
    columns, row = rows.block.header, kept.row
    vector = rows.block.row_bytes(row)
    header = encode_header(
        Header(
            v=VERSION,
            model=columns.model,
            request_id=columns.request_ids[columns.request[row]],
            stratum=columns.strata[columns.request[row]],
            layer=columns.layer,
            position=columns.position[row],
            token_id=columns.token_id[row],
            phase="prefill" if columns.is_prefill[row] else "decode",
            norm=float(rows.norms[row]),
            probability=kept.probability,
            baseline_probability=kept.baseline_probability,
            reason=kept.reason,
            captured_at=columns.captured_at,
            dtype=columns.dtype,
            shape=(columns.d_model,),
            checksum=checksum(vector),
            scores=kept.scores,
        )
    )
    if len(header) > MAX_HEADER_BYTES:
        raise RecordError("oversized", f"header has {len(header)} bytes, limit {MAX_HEADER_BYTES}")
    return header, vector


class _Remains(msgspec.Struct):
    model: str | None = None
    captured_at: float | None = None
    strata: list[str] = []
    request: list[int] = []
    position: list[msgspec.Raw] = []


_ONE_ROW: Final = Counter({UNKNOWN: 1})
_remains_decoder = msgspec.msgpack.Decoder(_Remains)


def estimate(header_bytes: bytes) -> Estimate:
    """Return what a refused block's header tells; one row of unknown stratum when it tells nothing."""
    try:
        found = _remains_decoder.decode(header_bytes)
    except UNDECODABLE:
        return Estimate(None, None, _ONE_ROW)
    if found.captured_at is not None and not math.isfinite(found.captured_at):
        found.captured_at = None
    if not found.position:
        return Estimate(found.model, found.captured_at, _ONE_ROW)
    strata = Counter({UNKNOWN: len(found.position)})
    is_told = len(found.request) == len(found.position) and set(found.strata) <= {UNIFORM, OPT_IN}
    if is_told and 0 <= min(found.request) <= max(found.request) < len(found.strata):
        strata = Counter(found.strata[request] for request in found.request)
    return Estimate(found.model, found.captured_at, strata)
