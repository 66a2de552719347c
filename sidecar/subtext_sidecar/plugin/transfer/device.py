"""Gather sampled rows on the device of the model and bring them to host memory, without waiting.

One port, two devices. Everything is allocated when the device is made, with room for ``rows``
rows, and reused by row number; who may use which rows when is the ring's business.
"""

from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from subtext_sidecar.plugin.step import CaptureError, Step

_MAX_KEPT_VALUES: Final = 1 << 18  # 1 MiB of float32
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


class Run(msgspec.Struct, frozen=True, gc=False):
    """Rows of one step in a ring: ``first`` to ``stop`` - 1."""

    first: int
    stop: int
    end: int  # of the ring's counter; not ``stop`` when the run begins at the start again
    mark: int  # of the step: a number below the ring's bound on steps, its own until it is released


class HostColumns(NamedTuple):
    """Host memory, as numpy sees it."""

    vectors: npt.NDArray[np.uint8]  # (rows, bytes of one vector)
    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int64]


class Device(Protocol):
    """Where the model runs."""

    layout: Layout
    host: HostColumns

    def gather(self, step: Step, indices: list[int], run: Run) -> None:
        """Start filling the run's rows from the step's rows at ``indices``; waits for nothing.

        After it returned, the step's buffers may be overwritten by work that is launched later.
        """

    def wait(self, run: Run) -> None:
        """Block until the rows of that gather are in host memory. Called once, on another thread."""


class _Tensors(NamedTuple):
    vectors: torch.Tensor
    token_ids: torch.Tensor
    positions: torch.Tensor


class _KeptStep(msgspec.Struct, frozen=True):
    residual: torch.Tensor
    indices: list[int]
    token_ids: list[int]
    positions: list[int]


class CpuDevice:
    """The model's tensors are in host memory already: one copy, made by whoever waits for it.

    On the CPU every forward pass returns a new tensor, which nobody writes any more, so keeping it
    until the sender looks is enough, and the engine's thread, whose caches the model has just
    emptied, copies nothing. A large step would keep too much memory and is copied at once.
    """

    def __init__(self, layout: Layout, marks: int) -> None:
        self.layout = layout
        with torch.inference_mode():
            self._host = _tensors(layout)
        self.host = _as_numpy(self._host)
        self._kept: list[_KeptStep | None] = [None] * marks
        self._sources: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        self._token_ids = self._positions = memoryview(b"")

    def gather(self, step: Step, indices: list[int], run: Run) -> None:
        """Keep the residual stream, and copy what the runner's own buffers say about the rows."""
        sources = self._sources
        if step.token_ids is not sources[0] or step.positions is not sources[1]:
            # The runner has the same buffers in every step.
            self._sources = (step.token_ids, step.positions)
            self._token_ids = memoryview(step.token_ids.numpy())
            self._positions = memoryview(step.positions.numpy())
        token_ids, positions = self._token_ids, self._positions
        self._kept[run.mark] = _KeptStep(
            step.residual,
            indices,
            [token_ids[row] for row in indices],
            [positions[row] for row in indices],
        )
        if step.residual.numel() > _MAX_KEPT_VALUES:
            self.wait(run)

    def wait(self, run: Run) -> None:
        """Copy the rows, unless that was done at once."""
        kept, self._kept[run.mark] = self._kept[run.mark], None
        if kept is None:
            return
        rows = slice(run.first, run.stop)
        with torch.inference_mode():
            torch.index_select(kept.residual, 0, torch.tensor(kept.indices), out=self._host.vectors[rows])
        self.host.token_ids[rows] = kept.token_ids
        self.host.positions[rows] = kept.positions


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
        self._index_values = self._host_index.numpy()
        self.host = _as_numpy(self._host)
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._gathered = [torch.cuda.Event() for _ in range(marks)]
        # Blocking: the sender's thread sleeps in ``wait`` instead of spinning beside the engine's.
        self._copied = [torch.cuda.Event(blocking=True) for _ in range(marks)]

    def gather(self, step: Step, indices: list[int], run: Run) -> None:
        """Launch the gather and the copy."""
        rows = slice(run.first, run.stop)
        self._index_values[rows] = indices
        with torch.inference_mode():
            index = self._index[rows].copy_(self._host_index[rows], non_blocking=True)
            staged, host = self._staged, self._host
            torch.index_select(step.residual, 0, index, out=staged.vectors[rows])
            torch.index_select(step.token_ids, 0, index, out=staged.token_ids[rows])
            torch.index_select(step.positions, 0, index, out=staged.positions[rows])
            self._gathered[run.mark].record(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._side):
                self._gathered[run.mark].wait(self._side)
                for to, of in zip(host, staged, strict=True):
                    to[rows].copy_(of[rows], non_blocking=True)
                self._copied[run.mark].record(self._side)

    def wait(self, run: Run) -> None:
        """Block until the copy is done; releases the interpreter meanwhile."""
        self._copied[run.mark].synchronize()


def open_device(layout: Layout, device: torch.device, marks: int) -> Device:
    """Return the device of a model whose tensors are on ``device``."""
    return CudaDevice(layout, device, marks) if device.type == "cuda" else CpuDevice(layout, marks)


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
