"""The rows of some blocks together, column by column, and the records of those that go on. Pure.

A block may hold a single row, and what is done for a block at a time would then cost more than what
is done for its rows; so blocks that came together are taken together.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from subtext_sidecar.block import Block
from subtext_sidecar.record import (
    BYTES_PER_VALUE,
    OPT_IN,
    UNDECODABLE,
    UNIFORM,
    UNKNOWN,
    VERSION,
    Header,
    checksum,
    encode_header,
    to_float32,
)


class Kind(NamedTuple):
    """What rows have in common that are taken together."""

    model: str
    layer: int
    dtype: str
    d_model: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one kind; columns have one entry a row."""

    kind: Kind
    contents: bytes  # the raw vectors, one after another
    vectors: npt.NDArray[np.float32]  # (rows, d_model)
    norms: npt.NDArray[np.float64]  # (rows,); not finite where the values are not
    captured_at: list[float]
    request_id: list[str]
    stratum: list[str]
    position: list[int]
    token_id: list[int]
    is_prefill: list[bool]
    probability: list[float]
    reason: list[str]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.position)


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


def kind_of(block: Block) -> Kind:
    """Return what a block's rows have in common."""
    header = block.header
    return Kind(header.model, header.layer, header.dtype, header.d_model)


def measure(*blocks: Block) -> Rows:
    """Return the rows of blocks of one kind as float32 with their norms."""
    kind, headers = kind_of(blocks[0]), [block.header for block in blocks]
    contents = b"".join([block.vectors for block in blocks])
    vectors = to_float32(contents, kind.dtype).reshape(-1, kind.d_model)
    return Rows(
        kind=kind,
        contents=contents,
        vectors=vectors,
        norms=_norms(vectors),
        captured_at=list(chain(*(repeat(one.captured_at, len(one.position)) for one in headers))),
        request_id=[one.request_ids[request] for one in headers for request in one.request],
        stratum=[one.strata[request] for one in headers for request in one.request],
        position=list(chain(*(one.position for one in headers))),
        token_id=list(chain(*(one.token_id for one in headers))),
        is_prefill=list(chain(*(one.is_prefill for one in headers))),
        probability=list(chain(*(one.probability for one in headers))),
        reason=list(chain(*(one.reason for one in headers))),
    )


def _norms(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        norms: npt.NDArray[np.float64] = np.sqrt(squares.astype(np.float64))
    # A sum of squares is not finite when a value is not, or when finite values are huge: then slowly.
    for row in np.flatnonzero(~np.isfinite(squares)):
        norms[row] = np.linalg.norm(vectors[row].astype(np.float64))
    return norms


def not_finite(rows: Rows) -> list[int]:
    """Return the rows whose values must not be used."""
    numbers: list[int] = np.flatnonzero(~np.isfinite(rows.norms)).tolist()
    return numbers


def make_record(rows: Rows, kept: Kept) -> tuple[bytes, bytes]:
    """Return a row's record, header and vector; a norm that is not finite becomes 0."""
    row, kind, norm = kept.row, rows.kind, float(rows.norms[kept.row])
    size = kind.d_model * BYTES_PER_VALUE[kind.dtype]
    vector = rows.contents[row * size : (row + 1) * size]
    header = Header(
        v=VERSION,
        model=kind.model,
        request_id=rows.request_id[row],
        stratum=rows.stratum[row],
        layer=kind.layer,
        position=rows.position[row],
        token_id=rows.token_id[row],
        phase="prefill" if rows.is_prefill[row] else "decode",
        norm=norm if math.isfinite(norm) else 0.0,
        probability=kept.probability,
        baseline_probability=kept.baseline_probability,
        reason=kept.reason,
        captured_at=rows.captured_at[row],
        dtype=kind.dtype,
        shape=(kind.d_model,),
        checksum=checksum(vector),
        scores=kept.scores,
    )
    return encode_header(header), vector


def unscreened(rows: Rows, row: int) -> Kept:
    """Return a row as the plugin sent it."""
    return Kept(row, rows.probability[row], rows.probability[row], rows.reason[row], {})


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
    return Estimate(found.model, found.captured_at, _strata(found.strata, found.request, found.position))


def _strata(strata: list[str], request: list[int], position: Sequence[object]) -> Counter[str]:
    is_told = len(request) == len(position) and set(strata) <= {UNIFORM, OPT_IN}
    if is_told and 0 <= min(request) <= max(request) < len(strata):
        return Counter(strata[number] for number in request)
    return Counter({UNKNOWN: len(position)})
