"""The sender's thread: encodes gathered rows and pushes them to the sidecar's socket.

It never makes the engine wait: the ring is bounded, sends do not block, and what does not fit is
dropped and counted. It runs seldom and for a short time, because while it runs the engine's thread
may have to wait for the interpreter: it sleeps, takes everything that came, and sleeps again.
ZeroMQ reconnects by itself when the sidecar comes back. After an error it begins again, with new sockets.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import zmq

from subtext_sidecar.contract.counters import CounterName, PluginCounter
from subtext_sidecar.contract.record import encode_coverage
from subtext_sidecar.local import wire
from subtext_sidecar.local.capture_view import CaptureView
from subtext_sidecar.local.ledger import SECONDS_PER_MINUTE, Cell, Ledger
from subtext_sidecar.local.policy import PolicyUpdate
from subtext_sidecar.local.policy_channel import PolicySubscriber
from subtext_sidecar.local.wire import CaptureStatus
from subtext_sidecar.plugin.transfer.encoding import EncodedStep, Identity, Part, encode
from subtext_sidecar.plugin.transfer.handover import Batch, Handover

_PACE_SECONDS: Final = 0.02  # from one look at the hand-over to the next
_IDLE_PACE_SECONDS: Final = 0.16  # reached step by step while nothing comes
_HIGH_WATER_MESSAGES: Final = 256
_REPEAT_EVERY: Final = 15  # heartbeats
_RECONNECT_MILLISECONDS: Final = 100
_RECONNECT_MAX_MILLISECONDS: Final = 2000
_AGAIN_SECONDS: Final = 5.0  # from an error to the next beginning
_CLOSE_SECONDS: Final = 2.0
_CLOSE_LINGER_MILLISECONDS: Final = 500
# Read off their class once: this thread has the interpreter while the engine may want it.
_SAMPLED: Final = PluginCounter.ROWS_SAMPLED
_HANDED_OVER: Final = PluginCounter.ROWS_HANDED_OVER
_SOCKET_FULL: Final = PluginCounter.DROPPED_SOCKET_FULL
_OVERSIZED: Final = PluginCounter.DROPPED_OVERSIZED
_ERROR: Final = PluginCounter.DROPPED_ERROR


class Sender:
    """Owns the sockets and the thread; ``close`` sends what is queued, within a deadline."""

    def __init__(
        self,
        *,
        socket_address: str,
        handover: Handover,
        ledger: Ledger,
        identity: Identity,
        fail: Callable[[str, Exception], object],
        status: Callable[[], CaptureStatus],
        set_policy: Callable[[PolicyUpdate], None],
        view: CaptureView,
    ) -> None:
        self._address = socket_address
        self._handover = handover
        self._ledger = ledger
        self._identity = identity
        self._fail = fail
        self._status = status
        self._set_policy = set_policy
        self._view = view
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subtext-sender", daemon=True)

    def start(self) -> None:
        """Start the thread; the sockets live and die in it."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after it has sent what was queued, or after two seconds."""
        self._stop.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                self._send_until_closed()
            except Exception as error:  # noqa: BLE001  # boundary of the thread: capture goes off, visibly
                self._fail("sender", error)
                self._stop.wait(_AGAIN_SECONDS)
            if self._stop.is_set():
                return

    def _send_until_closed(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MESSAGES)
            # Without a connected sidecar a send fails at once instead of filling a pipe.
            socket.setsockopt(zmq.IMMEDIATE, 1)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MILLISECONDS)
            socket.connect(self._address)
            with PolicySubscriber(context, self._address) as policies:
                try:
                    self._loop(socket, policies)
                finally:
                    socket.setsockopt(zmq.LINGER, _CLOSE_LINGER_MILLISECONDS)

    def _loop(self, socket: "zmq.Socket[bytes]", policies: PolicySubscriber) -> None:
        beats, due, pace = 0, time.monotonic(), _PACE_SECONDS
        while True:
            stopping = self._stop.is_set()
            pace = _PACE_SECONDS if self._drain(socket) else min(2 * pace, _IDLE_PACE_SECONDS)
            self._follow_policy(policies)
            if stopping or time.monotonic() >= due:
                self._heartbeat(socket, repeat=beats % _REPEAT_EVERY == 0)
                beats += 1
                due = time.monotonic() + wire.HEARTBEAT_SECONDS
            if stopping:
                return
            self._stop.wait(pace)

    def _drain(self, socket: "zmq.Socket[bytes]") -> bool:
        """Send everything that was handed over; tell whether there was anything."""
        handover = self._handover
        count = len(handover)
        for _ in range(count):
            self._send_batch(socket, handover.popleft())
        return count > 0

    def _send_batch(self, socket: "zmq.Socket[bytes]", batch: Batch) -> None:
        minute = int(batch.captured_at) // SECONDS_PER_MINUTE
        try:
            encoded = self._encode(batch)
            for counter, strata in encoded.dropped.items():
                self._count(minute, counter, strata)
            for part in encoded.parts:
                self._count(minute, self._send(socket, part), part.strata)
        finally:
            batch.release()

    def _encode(self, batch: Batch) -> EncodedStep:
        try:
            return encode(batch, self._identity)
        except Exception as error:  # noqa: BLE001  # boundary of the hook: capture goes off, the heartbeat goes on
            self._fail("sender", error)
            return EncodedStep([], {_ERROR: Counter(watch.stratum for watch, _ in batch.picked.wanted)})

    def _send(self, socket: "zmq.Socket[bytes]", part: Part) -> CounterName:
        """Send a block, and return what counts its rows."""
        if not part.is_sendable:
            return _OVERSIZED
        try:
            return _HANDED_OVER if _push(socket, [wire.BLOCK, part.header, part.vectors]) else _SOCKET_FULL
        except Exception as error:  # noqa: BLE001  # boundary of the block: capture goes off, and its rows are counted
            self._fail("sender", error)
            return _ERROR

    def _follow_policy(self, policies: PolicySubscriber) -> None:
        update = policies.latest()
        if update is not None:
            self._set_policy(update)

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

    def _count(self, minute: int, outcome: CounterName, strata: Counter[str]) -> None:
        for stratum, count in strata.items():
            cell = Cell(self._identity.model, stratum, minute, self._identity.tenant)
            self._ledger.add(cell, _SAMPLED, count)
            self._ledger.add(cell, outcome, count)


def _push(socket: "zmq.Socket[bytes]", frames: list[Any]) -> bool:
    try:
        socket.send_multipart(frames, flags=zmq.NOBLOCK)
    except zmq.ZMQError:
        # No sidecar, or one that does not keep up.
        return False
    return True
