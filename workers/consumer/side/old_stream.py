"""The one stream of before: what lies in it moves to the streams of its models and layers.

An upgrade loses nothing by it, in whatever order sidecars and workers are replaced: old sidecars write to
it as long as they run, and old workers take what they take. Any number of workers may move at once.
"""

import threading
import time
import uuid
from collections import Counter
from typing import Any

import msgspec
import redis
import structlog
from sqlalchemy.orm import Session, sessionmaker

from service.store.tenants.sessions import session_of
from service.store.write import coverage
from subtext_sidecar.contract import record, streams
from subtext_sidecar.contract.counters import Stratum, WorkerCounter
from workers.consumer import ledger
from workers.consumer.ledger import MAX_TEXT
from workers.consumer.queue import Entry, StreamQueue
from workers.errors import STORE_ERRORS

log = structlog.get_logger()

_BATCH = 64
_BLOCK_MS = 100
_PAUSE_SECONDS = 5.0
_MOST_LAYERS = 10_000
MOST_ENTRIES = 4096
"""Of a stream that something is moved to."""


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

    def __init__(
        self,
        client: redis.Redis,
        queue: StreamQueue,
        own: str,
        *,
        model: str,
        sessions: sessionmaker[Session],
    ) -> None:
        """``queue`` reads OLD_ACTIVATIONS_STREAM; ``own`` is the stream of this worker's decoder."""
        self._redis: Any = client
        self._queue = queue
        self._own = own
        self._model = model
        self._sessions = sessions
        self._source = f"worker-{uuid.uuid4().hex}"
        self._lost = (
            0  # moved although a sidecar trimmed them, and counted them as dropped; not counted yet
        )

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
        if self._is_full(self._own):
            return 0
        entries = self._queue.fetch(_BATCH, _BLOCK_MS).entries
        moved = 0
        for entry in entries:
            stream = stream_for(entry, self._own)
            # Nobody may bound the new stream yet: the rest waits where the old sidecar trims and counts.
            if not self._is_full(stream):
                self._lost += self._queue.move(entry, stream)
                moved += 1
        if moved:
            log.info("entries_moved", entries=moved, stream=streams.OLD_ACTIVATIONS_STREAM)
        if self._lost:
            self._count_lost()
        return moved

    def _is_full(self, stream: str) -> bool:
        return int(self._redis.xlen(stream)) >= MOST_ENTRIES

    def _count_lost(self) -> None:
        cell = ledger.Cell(self._model, Stratum.UNKNOWN, int(time.time()) // 60)
        counts: ledger.Counts = Counter({(cell, WorkerCounter.ROWS_TRIMMED_BUT_READ): self._lost})
        # Sidecars that write to this stream know no tenants.
        with session_of(self._sessions, cell.tenant) as session:
            coverage.add_counts(session, ledger.to_rows(self._source, counts))
            session.commit()
        self._lost = 0
