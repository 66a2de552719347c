"""The receiving end of the local socket."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import zmq

# Far above any record, so that an oversized one arrives, is counted and is dead-lettered, while a
# runaway peer cannot fill the memory.
_MAX_FRAME_BYTES: Final = 16 << 20
_HIGH_WATER_MESSAGES: Final = 256


class Receiver:
    """Binds the socket. Past the high-water mark messages stay with the plugin, which drops and counts."""

    def __init__(self, address: str) -> None:
        Path(address.removeprefix("ipc://")).parent.mkdir(parents=True, exist_ok=True)
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MESSAGES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address)

    def receive(self, timeout_seconds: float, limit: int) -> list[list[bytes]]:
        """Return up to ``limit`` messages, waiting only for the first."""
        if not self._socket.poll(int(timeout_seconds * 1000)):
            return []
        messages: list[list[bytes]] = []
        while len(messages) < limit:
            try:
                messages.append(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
        return messages

    def close(self) -> None:
        """Unbind and free the socket."""
        self._socket.close()
        self.context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
