"""The hand-over of gathered rows from the engine's thread to the sender's thread.

The engine's side appends and never signals: waking a thread costs more than the copy, and a woken
thread asks for the interpreter in the middle of the engine's step. The sender looks by itself.
"""

from collections import deque
from typing import NamedTuple

from subtext_sidecar.plugin.ring import Gathered, Ring, Run


class Row(NamedTuple):
    """What the host knows about one taken row."""

    request_id: str  # external
    stratum: str  # of the request: record.UNIFORM or OPT_IN
    position: int
    is_prefill: bool
    probability: float
    reason: str


class Batch(NamedTuple):
    """The taken rows of one step, on their way to the host."""

    rows: list[Row]
    ring: Ring
    run: Run
    captured_at: float  # Unix seconds

    def read(self) -> Gathered:
        """Wait for the device and return the rows; valid until ``release``."""
        return self.ring.read(self.run)

    def release(self) -> None:
        """Give the rows' memory back; batches are released in their order."""
        self.ring.release(self.run)


# Appended to by the engine's thread and popped by the sender's, each of which is atomic. Bounded by
# the ring: a batch stands for rows of it.
Handover = deque[Batch]
