"""Gather sampled rows on the device of the model and bring them to host memory, without waiting.

One port, two devices. Everything is allocated when the device is made, with room for ``rows``
rows, and reused by row number; who may use which rows when is the ring's business.
"""

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from subtext_sidecar.plugin.step import CaptureError, Step

_NAMES: Final = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Layout(NamedTuple):
    """How many rows, and what one is. Both runners keep token ids as int32 and positions as int64."""

    rows: int
    d_model: int
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """Return the type as records name it; raises CaptureError for one that they cannot carry."""
        if self.dtype not in _NAMES:
            raise CaptureError(
                f"vectors of {self.dtype} cannot be captured; known are {sorted(_NAMES.values())}"
            )
        return _NAMES[self.dtype]


class HostColumns(NamedTuple):
    """Host memory, as numpy sees it."""

    vectors: npt.NDArray[np.uint8]  # (rows, bytes of one vector)
    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int64]


class Device(Protocol):
    """Where the model runs."""

    layout: Layout
    index: npt.NDArray[np.int64]  # (rows,): which row of the step goes into each row
    host: HostColumns

    def gather(self, step: Step, first: int, stop: int, mark: int) -> None:
        """Start filling rows ``first`` to ``stop`` - 1 from the step's rows that ``index`` names there.

        After it returned, the step's tensors may be overwritten by work that is launched later.
        """

    def wait(self, mark: int) -> None:
        """Block until the gather with that mark, an own number below ``marks``, is in host memory."""


class _Tensors(NamedTuple):
    vectors: torch.Tensor
    token_ids: torch.Tensor
    positions: torch.Tensor


class CpuDevice:
    """The model's tensors are in host memory already: one copy."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        with torch.inference_mode():
            self._index = torch.zeros(layout.rows, dtype=torch.int64)
            self._host = _tensors(layout)
        self.index = self._index.numpy()
        self.host = _as_numpy(self._host)

    def gather(self, step: Step, first: int, stop: int, mark: int) -> None:  # noqa: ARG002  # done when it returns
        """Copy the rows."""
        with torch.inference_mode():
            _select(step, self._index[first:stop], self._host, first, stop)

    def wait(self, mark: int) -> None:
        """Return: the rows are there."""


class CudaDevice:
    """Gathers into device memory on the engine's own stream, copies out on a side stream.

    The engine's stream orders the gather before the next step overwrites its tensors. The copy to
    pinned memory waits for the gather on the side stream, so neither the host nor the engine's
    stream waits for it. The side stream writes rows of ours only, which the ring does not hand out
    again before ``wait`` has returned for them.
    """

    def __init__(self, layout: Layout, device: torch.device, marks: int) -> None:
        self.layout = layout
        with torch.inference_mode():
            self._host_index = torch.zeros(layout.rows, dtype=torch.int64, pin_memory=True)
            self._index = torch.zeros(layout.rows, dtype=torch.int64, device=device)
            self._host = _tensors(layout, pin_memory=True)
            self._staged = _tensors(layout, device=device)
        self.index = self._host_index.numpy()
        self.host = _as_numpy(self._host)
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._gathered = [torch.cuda.Event() for _ in range(marks)]
        # Blocking: the sender's thread sleeps in ``wait`` instead of spinning beside the engine's.
        self._copied = [torch.cuda.Event(blocking=True) for _ in range(marks)]

    def gather(self, step: Step, first: int, stop: int, mark: int) -> None:
        """Launch the gather and the copy."""
        with torch.inference_mode():
            index = self._index[first:stop].copy_(self._host_index[first:stop], non_blocking=True)
            _select(step, index, self._staged, first, stop)
            self._gathered[mark].record(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._side):
                self._gathered[mark].wait(self._side)
                for host, staged in zip(self._host, self._staged, strict=True):
                    host[first:stop].copy_(staged[first:stop], non_blocking=True)
                self._copied[mark].record(self._side)

    def wait(self, mark: int) -> None:
        """Block until the copy is done; releases the interpreter meanwhile."""
        self._copied[mark].synchronize()


def open_device(layout: Layout, device: torch.device, marks: int) -> Device:
    """Return the device of a model whose tensors are on ``device``."""
    return CudaDevice(layout, device, marks) if device.type == "cuda" else CpuDevice(layout)


def _tensors(layout: Layout, **where: Any) -> _Tensors:
    return _Tensors(
        torch.zeros((layout.rows, layout.d_model), dtype=layout.dtype, **where),
        torch.zeros(layout.rows, dtype=torch.int32, **where),
        torch.zeros(layout.rows, dtype=torch.int64, **where),
    )


def _as_numpy(tensors: _Tensors) -> HostColumns:
    return HostColumns(
        tensors.vectors.view(torch.uint8).numpy(), tensors.token_ids.numpy(), tensors.positions.numpy()
    )


def _select(step: Step, index: torch.Tensor, into: _Tensors, first: int, stop: int) -> None:
    torch.index_select(step.residual, 0, index, out=into.vectors[first:stop])
    torch.index_select(step.token_ids, 0, index, out=into.token_ids[first:stop])
    torch.index_select(step.positions, 0, index, out=into.positions[first:stop])
