"""The receiving end of the local socket."""

from pathlib import Path
from typing import Final

import zmq

from subtext_sidecar.local import wire
from subtext_sidecar.local.closing import Closing

_HIGH_WATER_MESSAGES: Final = 256
# One turn's work: enough to be done together, little enough to keep Redis busy all the time.
_MESSAGES_AT_ONCE: Final = 128
_BYTES_AT_ONCE: Final = 1 << 20


class Receiver(Closing):
    """Binds the socket. Past the high-water mark messages stay with the plugin, which drops and counts."""

    def __init__(self, address: str) -> None:
        Path(address.removeprefix("ipc://")).parent.mkdir(parents=True, exist_ok=True)
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MESSAGES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address)

    def wait(self, timeout_seconds: float) -> bool:
        """Tell whether a message is there, as soon as one is."""
        return bool(self._socket.poll(int(timeout_seconds * 1000)))

    def receive(self, timeout_seconds: float) -> list[list[bytes]]:
        """Return what is there, up to a bound, waiting only for the first message."""
        if not self.wait(timeout_seconds):
            return []
        messages: list[list[bytes]] = []
        size_bytes = 0
        while len(messages) < _MESSAGES_AT_ONCE and size_bytes < _BYTES_AT_ONCE:
            try:
                messages.append(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            size_bytes += sum(map(len, messages[-1]))
        return messages

    def close(self) -> None:
        """Unbind and free the socket."""
        self._socket.close()
        self.context.term()
