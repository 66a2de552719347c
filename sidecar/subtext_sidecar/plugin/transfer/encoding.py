"""Turn a batch of rows into blocks for the socket. Pure but for waiting on the copy.

This shares the interpreter with the engine's thread, so it works on columns: what it does for
each row is done in C, and rows are looked at one by one only when some must not be sent.
"""

import zlib
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.counters import PluginCounter
from subtext_sidecar.contract.record import VERSION
from subtext_sidecar.local.block import MAX_ROWS, BlockHeader, encode_block
from subtext_sidecar.plugin.sampling.row import Row
from subtext_sidecar.plugin.transfer.handover import Batch


class Part(NamedTuple):
    """A block, not yet sent."""

    header: bytes
    vectors: npt.NDArray[np.uint8]  # (rows, bytes of one vector), contiguous; may be a view of the ring
    strata: Counter[str]  # rows by stratum


class Encoded(NamedTuple):
    """Blocks, and the rows that must not be sent."""

    parts: list[Part]
    dropped: dict[PluginCounter, Counter[str]]  # rows by stratum, by what counts them


class Identity(NamedTuple):
    """What every row of one engine shares."""

    model: str
    layer: int  # K
    end_token_ids: frozenset[int]


def encode(batch: Batch, identity: Identity) -> Encoded:
    """Return the batch as blocks, at most block.MAX_ROWS rows each; they are valid until it is released.

    Two kinds of rows are dropped here, because only the device knew: one whose real position is
    not the one that the host foresaw (a rejected draft), and the extra pass that asynchronous
    scheduling runs on the end token of a text that is already over.
    """
    gathered = batch.read()
    rows, token_ids = batch.rows, gathered.token_ids.tolist()
    positions = gathered.positions.tolist()
    vectors = gathered.vectors
    dropped: dict[PluginCounter, Counter[str]] = {}
    foreseen = [row.position for row in rows]
    if positions != foreseen or not identity.end_token_ids.isdisjoint(token_ids):
        kept = _kept(rows, token_ids, positions, identity.end_token_ids, dropped)
        rows = [rows[number] for number in kept]
        token_ids = [token_ids[number] for number in kept]
        vectors = vectors[kept]
    parts = []
    for first in range(0, len(rows), MAX_ROWS):
        stop = first + MAX_ROWS
        parts.append(_part(batch, identity, rows[first:stop], token_ids[first:stop], vectors[first:stop]))
    return Encoded(parts, dropped)


def _kept(
    rows: list[Row],
    token_ids: list[int],
    positions: list[int],
    end_token_ids: frozenset[int],
    dropped: dict[PluginCounter, Counter[str]],
) -> list[int]:
    kept = []
    for number, row in enumerate(rows):
        if positions[number] != row.position:
            dropped.setdefault(PluginCounter.DROPPED_POSITION_MISMATCH, Counter())[row.stratum] += 1
        elif token_ids[number] in end_token_ids and not row.is_prefill:
            dropped.setdefault(PluginCounter.DROPPED_AFTER_END, Counter())[row.stratum] += 1
        else:
            kept.append(number)
    return kept


def _part(
    batch: Batch, identity: Identity, rows: list[Row], token_ids: list[int], vectors: npt.NDArray[np.uint8]
) -> Part:
    columns: Any = zip(*rows, strict=True)
    request_ids, strata, positions, is_prefill, probabilities, reasons = columns
    # Two live requests may carry the same client's id, and the client may have asked for only one.
    numbers: dict[tuple[str, str], int] = {}
    request = [numbers.setdefault(key, len(numbers)) for key in zip(request_ids, strata, strict=True)]
    layout = batch.ring.layout
    header = BlockHeader(
        v=VERSION,
        model=identity.model,
        layer=identity.layer,
        dtype=layout.dtype_name,
        d_model=layout.d_model,
        captured_at=batch.captured_at,
        checksum=[zlib.crc32(vector.data) for vector in vectors],
        request_ids=[request_id for request_id, _ in numbers],
        strata=[stratum for _, stratum in numbers],
        request=request,
        position=positions,
        token_id=token_ids,
        is_prefill=is_prefill,
        probability=probabilities,
        reason=reasons,
    )
    return Part(encode_block(header), vectors, Counter(strata))


def end_token_ids(*configured: int | Collection[int] | None) -> frozenset[int]:
    """Return the end tokens named in model or generation configurations: one, several or none."""
    ids: set[int] = set()
    for one in configured:
        if isinstance(one, int):
            ids.add(one)
        elif one is not None:
            ids.update(one)
    return frozenset(ids)
