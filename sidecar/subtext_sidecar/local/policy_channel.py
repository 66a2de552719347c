"""The way of a capture policy from the sidecar to the plugin: a second local socket.

The sidecar publishes the policy in force with every heartbeat, so that a plugin that started or
reconnected later learns it too. Neither side ever waits for the other. No pickle, no code.
"""

import logging
from typing import Final

import zmq

from subtext_sidecar.local.closing import Closing
from subtext_sidecar.local.policy import PolicyError, PolicyUpdate, decode_update, encode_update

SUFFIX: Final = ".policy"
LOGGER: Final = "vllm.plugins.subtext"  # of the subscriber: vLLM shows what is below its own name

_MAX_UPDATE_BYTES: Final = 1 << 16
_RECONNECT_MILLISECONDS: Final = 100
_RECONNECT_MAX_MILLISECONDS: Final = 2000


def address_of(socket_address: str) -> str:
    """Return the address of the policy's socket beside the rows' own."""
    return socket_address + SUFFIX


class PolicyPublisher(Closing):
    """Binds the socket in the sidecar."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", socket_address: str) -> None:
        self._socket = context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address_of(socket_address))

    def publish(self, update: PolicyUpdate) -> None:
        """Tell every connected plugin; one that is not connected is not waited for."""
        self._socket.send(encode_update(update), zmq.NOBLOCK)

    def close(self) -> None:
        """Unbind."""
        self._socket.close()


class PolicySubscriber(Closing):
    """Connects from the plugin's sender thread. ZeroMQ reconnects when the sidecar comes back."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", socket_address: str) -> None:
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.CONFLATE, 1)  # only the newest counts
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_UPDATE_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MILLISECONDS)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(address_of(socket_address))
        self._last: bytes | None = None

    def latest(self) -> PolicyUpdate | None:
        """Return the newest policy if it is another than the last one received, else None; never waits.

        A policy that cannot be used is logged once and skipped: the one in force stays.
        """
        try:
            payload = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        if payload == self._last:
            return None
        self._last = payload
        try:
            return decode_update(payload)
        except PolicyError as error:
            logging.getLogger(LOGGER).warning("subtext: policy from the sidecar refused: %s", error)
            return None

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
