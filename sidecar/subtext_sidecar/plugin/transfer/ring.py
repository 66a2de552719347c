"""A ring of rows in host memory: filled by the engine's thread, emptied by the sender's thread.

All memory is taken when the ring is made. A step takes one contiguous run of rows; runs are given
back in the order in which they were taken, so two counters that only grow tell what is free, and
neither thread ever takes a lock or waits for the other.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from subtext_sidecar.contract.counters import PluginCounter
from subtext_sidecar.plugin.step import Step
from subtext_sidecar.plugin.transfer.device import Device, Layout, Run, open_device

MAX_STEPS: Final = 256  # with rows in the ring at the same time

# Read off their class once: a full ring must not cost its engine more than an empty one.
_QUEUE_FULL: Final = PluginCounter.DROPPED_QUEUE_FULL
_RING_FULL: Final = PluginCounter.DROPPED_RING_FULL


class GatheredRows(NamedTuple):
    """The rows of one run, as views of the ring: valid until the run is released."""

    vectors: npt.NDArray[np.uint8]  # (rows, bytes of one vector)
    token_ids: npt.NDArray[np.int32]  # (rows,)
    positions: npt.NDArray[np.int64]  # (rows,)


class Ring:
    """``gather`` belongs to the engine's thread, ``read`` and ``release`` to the sender's."""

    def __init__(self, device: Device, max_steps: int = MAX_STEPS) -> None:
        self._device = device
        self.rows, self.d_model, self.dtype = device.layout
        self.full: PluginCounter = _QUEUE_FULL  # what counts the rows that the last gather had no room for
        self._max_steps = max_steps
        self._row_end = self._row_start = 0
        self._step_end = self._step_start = 0

    @property
    def layout(self) -> Layout:
        """Return how many rows the ring holds, and of what."""
        return self._device.layout

    @property
    def is_empty(self) -> bool:
        """Tell whether every run was given back."""
        return self._step_end == self._step_start

    def renewed(self) -> "Ring":
        """Return a ring in the memory of this one, which must be empty and is not to be used any more."""
        return Ring(self._device, self._max_steps)

    def gather(self, step: Step, indices: list[int]) -> Run | None:
        """Start copying rows of a step of the ring's type, or return None without room.

        ``full`` tells what counts the latter. Waits for nothing, and drops before it pays for a copy.
        """
        if self._step_end - self._step_start >= self._max_steps:
            self.full = _RING_FULL
            return None
        rows = len(indices)
        if self._row_end == self._row_start:
            # Empty, so nobody else looks: begin at the start, where the memory is still in the cache.
            self._row_end = self._row_start = 0
        first = self._row_end % self.rows
        end = self._row_end + rows
        if first + rows > self.rows:
            end += self.rows - first
            first = 0
        if end - self._row_start > self.rows:
            self.full = _QUEUE_FULL
            return None
        run = Run(first, first + rows, end, self._step_end % self._max_steps)
        self._device.gather(step, indices, run)
        self._row_end = end
        self._step_end += 1
        return run

    def read(self, run: Run) -> GatheredRows:
        """Return the run's rows; waits until the device has written them."""
        self._device.wait(run)
        rows = slice(run.first, run.stop)
        host = self._device.host
        return GatheredRows(host.vectors[rows], host.token_ids[rows], host.positions[rows])

    def release(self, run: Run) -> None:
        """Give the oldest run back."""
        self._row_start = run.end
        self._step_start += 1


def open_ring(layout: Layout, device: torch.device) -> Ring:
    """Allocate a ring for a model whose tensors are on ``device``."""
    return Ring(open_device(layout, device, MAX_STEPS))
