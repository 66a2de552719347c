"""Load generators of bench-sidecar: an endless block sender, and a bare stream writer.

``python -m bench.sidecar_load send SOCKET ROWS`` sends blocks as fast as the sidecar takes them, until
killed. ``python -m bench.sidecar_load write REDIS_URL SECONDS`` appends prepared entries with redis-py's
pipeline and prints the entries per second.
"""

import sys
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from subtext_sidecar.contract.counters import Stratum
from subtext_sidecar.contract.facts import RequestFacts, RowFacts
from subtext_sidecar.contract.streams import activations_stream

D_MODEL: Final = 3584  # of Qwen2.5-7B; a row is 7 KB in bfloat16
LAYER: Final = 20
MODEL: Final = "Qwen2.5-7B-Instruct"
_BLOCKS: Final = 64  # distinct blocks, sent repeatedly
_ENTRIES_PER_BATCH: Final = 256
_HEADER_BYTES: Final = 700  # size of a record's header with the scores of 16 probes
_STREAM_ENTRIES: Final = 30_000
_DIRECTIONS: Final = 48


def benign(rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Return random activations (rows, D_MODEL) with a mean, a subspace and noise."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(0)
    mean = shape.standard_normal(D_MODEL)
    directions = shape.standard_normal((_DIRECTIONS, D_MODEL))
    weights = rng.standard_normal((rows, _DIRECTIONS)) * np.geomspace(0.5, 0.05, _DIRECTIONS)
    noise = rng.standard_normal((rows, D_MODEL)) * 0.2
    return np.asarray((mean + weights @ directions + noise) * rng.uniform(1, 3, (rows, 1)), np.float32)


def block(rows: int, number: int) -> tuple[bytes, bytes]:
    """Return the frames of one engine step: header, and bfloat16 rows of one request each."""
    from subtext_sidecar.local.block import VERSION, BlockHeader, checksums, encode_block

    vectors = (benign(rows, seed=1000 + number).view(np.uint32) >> 16).astype("<u2").tobytes()
    header = BlockHeader(
        v=VERSION,
        model=MODEL,
        layer=LAYER,
        dtype="bfloat16",
        d_model=D_MODEL,
        captured_at=time.time(),
        requests=[
            RequestFacts(request_id=f"chatcmpl-{number:08x}{row:024x}", stratum=Stratum.UNIFORM)
            for row in range(rows)
        ],
        request=list(range(rows)),
        rows=[
            RowFacts(
                position=100 + number,
                token_id=1234,
                phase="decode",
                probability=0.0025,
                reason="decode",
                checksum=checksum,
            )
            for checksum in checksums(vectors, rows)
        ],
    )
    return encode_block(header), vectors


def send(address: str, rows: int) -> None:
    """Send blocks forever, blocking while the socket's queue is full."""
    import zmq

    from subtext_sidecar.local import wire

    blocks = [block(rows, number) for number in range(_BLOCKS)]
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 256)
        socket.connect(address)
        while True:
            for header, vectors in blocks:
                socket.send_multipart([wire.BLOCK, header, vectors], copy=False)


def write(redis_url: str, seconds: float) -> float:
    """Append entries of a record's size for ``seconds``; return the entries per second."""
    from redis import Redis

    rng = np.random.default_rng(0)
    fields: dict[Any, Any] = {"h": rng.bytes(_HEADER_BYTES), "a": rng.bytes(2 * D_MODEL)}
    stream = activations_stream(MODEL, LAYER)
    with Redis.from_url(redis_url) as client:
        started, written = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            pipeline = client.pipeline(transaction=False)
            for _ in range(_ENTRIES_PER_BATCH):
                pipeline.xadd(stream, fields)
            pipeline.xtrim(stream, maxlen=_STREAM_ENTRIES, approximate=True)
            pipeline.execute()
            written += _ENTRIES_PER_BATCH
        return written / (time.monotonic() - started)


if __name__ == "__main__":
    what, where, much = sys.argv[1:]
    if what == "send":
        send(where, int(much))
    else:
        print(write(where, float(much)))
