"""Choose the demo's ports: the documented ones where they are free, any others where not."""

import contextlib
import socket
from dataclasses import dataclass

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of the demo's processes."""

    openai: int = 8000
    api: int = 8100
    plugin: int = 8101
    sidecar: int = 8102
    worker: int = 8103
    valkey: int = 8104
    log: int = 8105


def choose_ports(preferred: Ports) -> Ports:
    """Return ``preferred`` with every port that is taken replaced by a free one."""
    with contextlib.ExitStack() as held:
        return Ports(
            openai=_choose(held, preferred.openai),
            api=_choose(held, preferred.api),
            plugin=_choose(held, preferred.plugin),
            sidecar=_choose(held, preferred.sidecar),
            worker=_choose(held, preferred.worker),
            valkey=_choose(held, preferred.valkey),
            log=_choose(held, preferred.log),
        )


def _choose(held: contextlib.ExitStack, preferred: int) -> int:
    # All stay bound until the last is chosen, so that no two choices can meet.
    for port in (preferred, 0):
        probe = held.enter_context(socket.socket())
        # Without this, a port whose last connections linger after a restart would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise OSError(f"no free port on {HOST}")
