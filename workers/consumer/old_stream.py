"""The one stream of before: what lies in it moves to the streams of its models and layers.

An upgrade loses nothing by it, in whatever order sidecars and workers are replaced: old sidecars write to
it as long as they run, and old workers take what they take. Any number of workers may move at once.
"""

import threading
from typing import Any

import msgspec
import redis
import structlog

from subtext_sidecar.contract import record, streams
from workers.consumer.ledger import MAX_TEXT
from workers.consumer.queue import Entry, StreamQueue
from workers.errors import STORE_ERRORS

log = structlog.get_logger()

_BATCH = 64
_BLOCK_MS = 100
_PAUSE_SECONDS = 5.0
_MOST_LAYERS = 10_000


class _Kind(msgspec.Struct):
    """The part of a header that tells which stream it is for."""

    model: str
    layer: int


_kind_decoder = msgspec.msgpack.Decoder(_Kind)


def stream_for(entry: Entry, default: str) -> str:
    """Return where an entry belongs; ``default`` where it does not tell, and is dead-lettered there."""
    try:
        kind = _kind_decoder.decode(entry.fields.get(streams.FIELD_HEADER, b""))
    except (msgspec.ValidationError, *record.UNDECODABLE):
        return default
    if not (0 < len(kind.model) <= MAX_TEXT and 0 <= kind.layer < _MOST_LAYERS):
        return default
    return streams.activations_stream(kind.model, kind.layer)


class OldStream:
    """Moves entries until told to stop; without such a stream it only looks now and then."""

    def __init__(self, client: redis.Redis, queue: StreamQueue, own: str) -> None:
        """``queue`` reads OLD_ACTIVATIONS_STREAM; ``own`` is the stream of this worker's decoder."""
        self._redis: Any = client
        self._queue = queue
        self._own = own

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; an outage is waited out."""
        while not stop.is_set():
            try:
                moved = self.step()
            except STORE_ERRORS as error:
                log.warning("old_stream_waits", error=repr(error))
                self._queue.reconnect()
                moved = 0
            if not moved:
                stop.wait(_PAUSE_SECONDS)

    def step(self) -> int:
        """Move one batch; return how many entries it had."""
        if not self._redis.exists(streams.OLD_ACTIVATIONS_STREAM):
            return 0  # fetching would make one
        entries = self._queue.fetch(_BATCH, _BLOCK_MS).entries
        for entry in entries:
            self._queue.move(entry, stream_for(entry, self._own))
        if entries:
            log.info("entries_moved", entries=len(entries), stream=streams.OLD_ACTIVATIONS_STREAM)
        return len(entries)
