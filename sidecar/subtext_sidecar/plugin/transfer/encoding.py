"""Turn a batch of rows into blocks for the socket. Pure but for waiting on the copy.

This shares the interpreter with the engine's thread, so what it does for each row is short: one
struct, one checksum. The vectors are sent from where the ring holds them, unless some must not be.
"""

import zlib
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.counters import PluginCounter
from subtext_sidecar.contract.facts import RequestFacts, RowFacts
from subtext_sidecar.contract.tenant import DEFAULT_TENANT
from subtext_sidecar.local.block import MAX_BLOCK_HEADER_BYTES, MAX_ROWS, VERSION, BlockHeader, encode_block
from subtext_sidecar.local.wire import MAX_FRAME_BYTES
from subtext_sidecar.plugin.sampling.rule import Choice, probability_of, reason_of
from subtext_sidecar.plugin.sampling.watchlist import WatchedPosition
from subtext_sidecar.plugin.transfer.handover import Batch


class Part(NamedTuple):
    """A block, not yet sent."""

    header: bytes
    vectors: npt.NDArray[np.uint8]  # (rows, bytes of one vector), contiguous; may be a view of the ring
    strata: Counter[str]  # rows by stratum

    @property
    def is_sendable(self) -> bool:
        """Whether the sidecar takes frames of this size; it would never see larger ones."""
        return len(self.header) <= MAX_BLOCK_HEADER_BYTES and self.vectors.nbytes <= MAX_FRAME_BYTES


class EncodedStep(NamedTuple):
    """Blocks, and the rows that must not be sent."""

    parts: list[Part]
    dropped: dict[PluginCounter, Counter[str]]  # rows by stratum, by what counts them


class Identity(NamedTuple):
    """What every row of one engine shares."""

    model: str
    layer: int  # K
    end_token_ids: frozenset[int]
    tenant: str = DEFAULT_TENANT


def encode(batch: Batch, identity: Identity) -> EncodedStep:
    """Return the batch as blocks, at most block.MAX_ROWS rows each; they are valid until it is released.

    Two kinds of rows are dropped here, because only the device knew: one whose real position is
    not the one that the host foresaw (a rejected draft), and the extra pass that asynchronous
    scheduling runs on the end token of a text that is already over. A third has no token: what the
    runner has in its place is of another request.
    """
    gathered = batch.read()
    wanted, token_ids = batch.picked.wanted, gathered.token_ids.tolist()
    positions = gathered.positions.tolist()
    vectors = gathered.vectors
    dropped: dict[PluginCounter, Counter[str]] = {}
    foreseen = [position for _, position in wanted]
    if (
        positions != foreseen
        or not identity.end_token_ids.isdisjoint(token_ids)
        or any(watch.embedded for watch, _ in wanted)
    ):
        kept = _kept(wanted, token_ids, positions, identity.end_token_ids, dropped)
        wanted = [wanted[number] for number in kept]
        token_ids = [token_ids[number] for number in kept]
        vectors = vectors[kept]
    parts = []
    rows = max(1, min(MAX_ROWS, MAX_FRAME_BYTES // vectors.shape[1]))
    for first in range(0, len(wanted), rows):
        stop = first + rows
        parts.append(_part(batch, identity, wanted[first:stop], token_ids[first:stop], vectors[first:stop]))
    return EncodedStep(parts, dropped)


def _kept(
    wanted: list[WatchedPosition],
    token_ids: list[int],
    positions: list[int],
    end_token_ids: frozenset[int],
    dropped: dict[PluginCounter, Counter[str]],
) -> list[int]:
    kept = []
    for number, (watch, position) in enumerate(wanted):
        if positions[number] != position:
            dropped.setdefault(PluginCounter.DROPPED_POSITION_MISMATCH, Counter())[watch.stratum] += 1
        elif position in watch.embedded:
            dropped.setdefault(PluginCounter.DROPPED_EMBEDDED, Counter())[watch.stratum] += 1
        elif token_ids[number] in end_token_ids and position >= watch.choice.prompt_tokens:
            dropped.setdefault(PluginCounter.DROPPED_AFTER_END, Counter())[watch.stratum] += 1
        else:
            kept.append(number)
    return kept


def _part(
    batch: Batch,
    identity: Identity,
    wanted: list[WatchedPosition],
    token_ids: list[int],
    vectors: npt.NDArray[np.uint8],
) -> Part:
    # By all that is known: two live requests may carry one id, and the client have asked for only one.
    numbers: dict[RequestFacts, int] = {}
    request = [numbers.setdefault(watch.request, len(numbers)) for watch, _ in wanted]
    layout = batch.ring.layout
    header = BlockHeader(
        v=VERSION,
        model=identity.model,
        tenant=identity.tenant,
        layer=identity.layer,
        dtype=layout.dtype_name,
        d_model=layout.d_model,
        captured_at=batch.captured_at,
        requests=list(numbers),
        request=request,
        rows=[
            row_facts(watch.choice, position, token_id, zlib.crc32(vector.data))
            for (watch, position), token_id, vector in zip(wanted, token_ids, vectors, strict=True)
        ],
    )
    return Part(encode_block(header), vectors, Counter([watch.stratum for watch, _ in wanted]))


def row_facts(choice: Choice, position: int, token_id: int, checksum: int) -> RowFacts:
    """Return what a taken row carries on about itself."""
    return RowFacts(
        position=position,
        token_id=token_id,
        phase="prefill" if position < choice.prompt_tokens else "decode",
        probability=probability_of(choice, position),
        reason=reason_of(choice, position),
        checksum=checksum,
    )


def end_token_ids(*configured: int | Collection[int] | None) -> frozenset[int]:
    """Return the end tokens named in model or generation configurations: one, several or none."""
    ids: set[int] = set()
    for one in configured:
        if isinstance(one, int):
            ids.add(one)
        elif one is not None:
            ids.update(one)
    return frozenset(ids)
