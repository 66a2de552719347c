"""Turn a hand-over batch into record frames. Pure but for waiting on the copy."""

from collections import Counter
from collections.abc import Collection
from typing import Final, NamedTuple

import torch

from subtext_sidecar.plugin.handover import Batch
from subtext_sidecar.record import VERSION, Header, checksum, encode_header

_DTYPES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Encoded(NamedTuple):
    """Records as (header, vector) frame pairs, and the rows that must not become records."""

    records: list[tuple[bytes, bytes]]
    dropped: Counter[str]  # by reason


class Identity(NamedTuple):
    """What every record of one engine shares."""

    model: str
    layer: int  # K
    end_token_ids: frozenset[int]


def encode(batch: Batch, identity: Identity) -> Encoded:
    """Return the batch's records.

    Two kinds of rows are dropped here, because only the device knew: one whose real position is
    not the one that the host foresaw (a rejected draft), and the extra pass that asynchronous
    scheduling runs on the end token of a text that is already over.
    """
    batch.staged.wait()
    vectors = batch.staged.vectors
    norms = torch.linalg.vector_norm(vectors.float(), dim=-1).tolist()
    token_ids = batch.staged.token_ids.tolist()
    positions = batch.staged.positions.tolist()
    raw = vectors.view(torch.uint8).numpy()
    encoded = Encoded([], Counter())
    dtype = _DTYPES[vectors.dtype]
    for number, row in enumerate(batch.rows):
        token_id = token_ids[number]
        if positions[number] != row.position:
            encoded.dropped["position_mismatch"] += 1
        elif token_id in identity.end_token_ids and not row.is_prefill:
            encoded.dropped["after_end"] += 1
        else:
            vector = raw[number].tobytes()
            header = Header(
                v=VERSION,
                model=identity.model,
                request_id=row.request_id,
                layer=identity.layer,
                position=row.position,
                token_id=token_id,
                phase="prefill" if row.is_prefill else "decode",
                norm=norms[number],
                probability=row.probability,
                reason=row.reason,
                captured_at=batch.captured_at,
                dtype=dtype,
                shape=(vectors.shape[1],),
                checksum=checksum(vector),
            )
            encoded.records.append((encode_header(header), vector))
    return encoded


def end_token_ids(*configured: int | Collection[int] | None) -> frozenset[int]:
    """Return the end tokens named in model or generation configurations: one, several or none."""
    ids: set[int] = set()
    for one in configured:
        if isinstance(one, int):
            ids.add(one)
        elif one is not None:
            ids.update(one)
    return frozenset(ids)
