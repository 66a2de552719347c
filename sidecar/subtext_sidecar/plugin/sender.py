"""The sender's thread: encodes gathered rows and pushes them to the sidecar's socket.

It never makes the engine wait: its queue is bounded, its sends do not block, and what does not
fit is dropped and counted. ZeroMQ reconnects by itself when the sidecar comes back.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import zmq

from subtext_sidecar import wire
from subtext_sidecar.capture_view import CaptureView
from subtext_sidecar.ledger import SECONDS_PER_MINUTE, Ledger
from subtext_sidecar.plugin.encoding import Identity, encode
from subtext_sidecar.plugin.handover import Batch, RowQueue
from subtext_sidecar.plugin.state import CaptureState
from subtext_sidecar.record import encode_coverage
from subtext_sidecar.wire import CaptureStatus

_REPEAT_EVERY: Final = 15  # heartbeats
_RECONNECT_MILLISECONDS: Final = 100
_RECONNECT_MAX_MILLISECONDS: Final = 2000
_CLOSE_SECONDS: Final = 2.0
_CLOSE_LINGER_MILLISECONDS: Final = 500

Frames = list[bytes]


class Sender:
    """Owns the socket and the thread; ``close`` sends what is queued, within a deadline."""

    def __init__(
        self,
        *,
        socket_address: str,
        queue: RowQueue,
        ledger: Ledger,
        identity: Identity,
        state: CaptureState,
        status: Callable[[], CaptureStatus],
        view: CaptureView,
    ) -> None:
        self._address = socket_address
        self._queue = queue
        self._ledger = ledger
        self._identity = identity
        self._state = state
        self._status = status
        self._view = view
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subtext-sender", daemon=True)

    def start(self) -> None:
        """Start the thread; the socket lives and dies in it."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after it has sent what was queued, or after two seconds."""
        self._stop.set()
        self._queue.wake()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.setsockopt(zmq.SNDHWM, max(1, 4096 // wire.MAX_RECORDS))
            # Without a connected sidecar a send fails at once instead of filling a pipe.
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MILLISECONDS)
            socket.connect(self._address)
            self._loop(socket)
            socket.setsockopt(zmq.LINGER, _CLOSE_LINGER_MILLISECONDS)

    def _loop(self, socket: "zmq.Socket[bytes]") -> None:
        beats = 0
        due = time.monotonic()
        while True:
            batch = self._queue.get(max(0.0, due - time.monotonic())) if not self._stop.is_set() else None
            batch = batch or (self._queue.get(0.0) if self._stop.is_set() else None)
            if batch is not None:
                self._send_batch(socket, batch)
            stopping = batch is None and self._stop.is_set()
            if stopping or time.monotonic() >= due:
                self._heartbeat(socket, repeat=beats % _REPEAT_EVERY == 0)
                beats += 1
                due = time.monotonic() + wire.HEARTBEAT_SECONDS
            if stopping:
                return

    def _send_batch(self, socket: "zmq.Socket[bytes]", batch: Batch) -> None:
        minute = int(batch.captured_at) // SECONDS_PER_MINUTE
        try:
            encoded = encode(batch, self._identity)
        except Exception as error:  # noqa: BLE001  # boundary of the hook: capture goes off, the heartbeat goes on
            self._state.fail("sender", error)
            self._count(minute, "dropped_error", len(batch.rows))
            return
        for reason, count in encoded.dropped.items():
            self._count(minute, f"dropped_{reason}", count)
        for first in range(0, len(encoded.records), wire.MAX_RECORDS):
            chunk = encoded.records[first : first + wire.MAX_RECORDS]
            sent = _push(socket, [wire.RECORDS, *(frame for record in chunk for frame in record)])
            self._count(minute, "rows_handed_over" if sent else "dropped_socket_full", len(chunk))

    def _heartbeat(self, socket: "zmq.Socket[bytes]", *, repeat: bool) -> None:
        now, minute = time.monotonic(), int(time.time()) // SECONDS_PER_MINUTE
        status = self._status()
        self._view.update_status(status, now)
        _push(socket, [wire.STATUS, wire.encode_status(status)])
        if repeat:
            self._ledger.repeat(minute)
        for count in self._ledger.take_changed():
            self._view.update_coverage(count)
            if not _push(socket, [wire.COVERAGE, encode_coverage(count)]):
                self._ledger.put_back(count)
        self._view.tick(now, minute)

    def _count(self, minute: int, counter: str, count: int) -> None:
        self._ledger.add(self._identity.model, minute, counter, count)


def _push(socket: "zmq.Socket[bytes]", frames: Frames) -> bool:
    try:
        socket.send_multipart(frames, flags=zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
