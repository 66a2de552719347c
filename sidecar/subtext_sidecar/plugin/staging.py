"""Copy sampled rows off the device without waiting for it."""

from typing import Any, NamedTuple

import torch

from subtext_sidecar.plugin.step import Step


class Staged(NamedTuple):
    """Rows in host memory once ``ready`` has passed; the sender's thread waits for it, nobody else."""

    vectors: torch.Tensor  # (rows, d_model)
    token_ids: torch.Tensor  # (rows,)
    positions: torch.Tensor  # (rows,)
    ready: Any  # torch.cuda.Event, or None when the rows are ready already

    def wait(self) -> None:
        """Block until the rows are in host memory."""
        if self.ready is not None:
            self.ready.synchronize()


def stage(step: Step, rows: list[int]) -> Staged:
    """Gather ``rows`` of the step and start their copy to the host.

    The gather runs on the engine's own stream, so that the next step cannot overwrite what is not
    yet gathered. Nothing here synchronises with the device.
    """
    with torch.inference_mode():
        index = torch.tensor(rows, dtype=torch.int64)
        on_device = step.residual.device.type == "cuda"
        if on_device:
            index = index.pin_memory().to(step.residual.device, non_blocking=True)
        vectors = step.residual.index_select(0, index)
        token_ids = step.token_ids.index_select(0, index)
        positions = step.positions.index_select(0, index)
        if not on_device:
            return Staged(vectors, token_ids, positions, None)
        staged = Staged(_to_host(vectors), _to_host(token_ids), _to_host(positions), torch.cuda.Event())
        staged.ready.record()
        return staged


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    # Into pinned memory, or non_blocking would not hold.
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
