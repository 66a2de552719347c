"""The hand-over of gathered rows from the engine's thread to the sender's thread.

The engine's side appends and never signals: waking a thread costs more than the copy, and a woken
thread asks for the interpreter in the middle of the engine's step. The sender looks by itself.
"""

from collections import deque

import msgspec

from subtext_sidecar.plugin.sampling.watchlist import RowSelection
from subtext_sidecar.plugin.transfer.device import Run
from subtext_sidecar.plugin.transfer.ring import GatheredRows, Ring


class Batch(msgspec.Struct, frozen=True):
    """The taken rows of one step, on their way to the host."""

    picked: RowSelection
    ring: Ring
    run: Run
    captured_at: float  # Unix seconds

    def read(self) -> GatheredRows:
        """Wait for the device and return the rows; valid until ``release``."""
        return self.ring.read(self.run)

    def release(self) -> None:
        """Give the rows' memory back; batches are released in their order."""
        self.ring.release(self.run)


# Appended to by the engine's thread and popped by the sender's, each of which is atomic. Bounded by
# the ring: a batch stands for rows of it.
Handover = deque[Batch]
