"""The rows of some blocks together, and the records of those that go on. Pure.

A block may hold a single row, and what is done for a block at a time would then cost more than what
is done for its rows; so blocks that came together are taken together.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import asdict

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.facts import RequestFacts, RowFacts
from subtext_sidecar.contract.record import (
    BYTES_PER_VALUE,
    NO_SCORES,
    UNDECODABLE,
    VERSION,
    encode_fields,
    to_float32,
)
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, is_tenant_name
from subtext_sidecar.local.block import Block


class Kind(NamedTuple):
    """What rows have in common that are taken together."""

    model: str
    layer: int
    dtype: str
    d_model: int
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one kind; lists have one entry a row."""

    kind: Kind
    contents: bytes  # the raw vectors, one after another
    vectors: npt.NDArray[np.float32]  # (rows, d_model)
    norms: npt.NDArray[np.float64]  # (rows,); not finite where the values are not
    captured_at: list[float] = field(default_factory=list)
    requests: list[RequestFacts] = field(default_factory=list)  # one a row
    facts: list[RowFacts] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.facts)


class KeptRow(NamedTuple):
    """A row that goes on, and what its record says about its being chosen."""

    row: int
    probability: float
    baseline_probability: float
    reason: str
    scores: msgspec.Raw
    """Encoded, as `record.encode_scores` returns them."""


class Estimate(NamedTuple):
    """What can still be told about the rows of a block that must not be used."""

    model: str | None
    tenant: str | None
    captured_at: float | None
    strata: Counter[str]  # rows by stratum, Stratum.UNKNOWN where it does not tell


def kind_of(block: Block) -> Kind:
    """Return what a block's rows have in common."""
    header = block.header
    return Kind(header.model, header.layer, header.dtype, header.d_model, header.tenant)


def measure(*blocks: Block) -> Rows:
    """Return the rows of blocks of one kind as float32 with their norms."""
    kind, headers = kind_of(blocks[0]), [block.header for block in blocks]
    contents = b"".join([block.vectors for block in blocks])
    vectors = to_float32(contents, kind.dtype).reshape(-1, kind.d_model)
    rows = Rows(kind=kind, contents=contents, vectors=vectors, norms=_norms(vectors))
    for one in headers:
        rows.captured_at.extend(repeat(one.captured_at, len(one.rows)))
        rows.requests.extend(map(one.requests.__getitem__, one.request))
        rows.facts.extend(one.rows)
    return rows


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


def make_record(rows: Rows, kept: KeptRow) -> tuple[bytes, bytes]:
    """Return a row's record, header and vector; a norm that is not finite becomes 0.

    The header is made of its fields alone: a `record.Header` between would double what a row costs.
    """
    row, probability, baseline_probability, reason, scores = kept
    kind, norm = rows.kind, rows.norms.item(row)
    size = kind.d_model * BYTES_PER_VALUE[kind.dtype]
    vector = rows.contents[row * size : (row + 1) * size]
    fields = {
        **asdict(rows.requests[row]),
        **asdict(rows.facts[row]),
        "v": VERSION,
        "model": kind.model,
        "layer": kind.layer,
        "tenant": kind.tenant,
        "norm": norm if math.isfinite(norm) else 0.0,
        "probability": probability,
        "baseline_probability": baseline_probability,
        "reason": reason,
        "captured_at": rows.captured_at[row],
        "dtype": kind.dtype,
        "shape": (kind.d_model,),
        "scores": scores,
    }
    return encode_fields(fields), vector


def unscreened(rows: Rows, row: int) -> KeptRow:
    """Return a row as the plugin sent it."""
    facts = rows.facts[row]
    return KeptRow(row, facts.probability, facts.probability, facts.reason, NO_SCORES)


class _Stratum(msgspec.Struct):
    stratum: str


class _Remains(msgspec.Struct):
    model: str | None = None
    tenant: str = DEFAULT_TENANT
    captured_at: float | None = None
    requests: list[_Stratum] = []
    request: list[int] = []
    rows: list[msgspec.Raw] = []
    strata: list[str] = []  # of version 1: one a request
    position: list[msgspec.Raw] = []  # of version 1: one a row


_SAMPLED: Final = frozenset({Stratum.UNIFORM, Stratum.OPT_IN, Stratum.CANARY})
_ONE_ROW: Final[Counter[str]] = Counter({Stratum.UNKNOWN: 1})
_remains_decoder = msgspec.msgpack.Decoder(_Remains)


def estimate(header_bytes: bytes) -> Estimate:
    """Return what a refused block's header tells; one row of unknown stratum when it tells nothing."""
    try:
        found = _remains_decoder.decode(header_bytes)
    except UNDECODABLE:
        return Estimate(None, None, None, _ONE_ROW)
    tenant = found.tenant if is_tenant_name(found.tenant) else None
    if found.captured_at is not None and not math.isfinite(found.captured_at):
        found.captured_at = None
    strata, rows = [one.stratum for one in found.requests] or found.strata, found.rows or found.position
    of_rows = _strata(strata, found.request, rows) if rows else _ONE_ROW
    return Estimate(found.model, tenant, found.captured_at, of_rows)


def _strata(strata: list[str], request: list[int], rows: Sequence[object]) -> Counter[str]:
    is_told = len(request) == len(rows) and set(strata) <= _SAMPLED
    if is_told and 0 <= min(request) <= max(request) < len(strata):
        return Counter(strata[number] for number in request)
    return Counter({Stratum.UNKNOWN: len(rows)})
