"""What an engine's captures hand on to one another: after an error another one begins."""

import time
from collections.abc import Callable

from subtext_sidecar.plugin.sampling.budget import Budget
from subtext_sidecar.plugin.sampling.split import ReceivedPrompts, SharedIdentity


class Memory:
    """Belongs to the engine's thread. Who can cause an error must not make us forget it by that."""

    def __init__(self, unix_time: Callable[[], float] = time.time) -> None:
        self.budget = Budget()
        self.received = ReceivedPrompts()
        self.shared_identity = SharedIdentity(unix_time)
