"""What one engine step looks like to the capture code, whichever model runner ran it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch


class Step(NamedTuple):
    """One executed batch, before its tokens are sampled.

    Rows of request i are row_starts[i] .. row_starts[i + 1] - 1 of every tensor, at positions
    first_positions[i], first_positions[i] + 1, ... Tensors may have padding rows behind the last.
    They belong to the runner and are overwritten by the next step: gather, never keep.
    """

    request_ids: Sequence[str]  # internal ids, in batch order, which is not scheduler order
    row_starts: Sequence[int]  # len(request_ids) + 1
    first_positions: Sequence[int]  # optimistic under speculative decoding, see positions
    residual: torch.Tensor  # (rows, d_model): the output of the captured block
    token_ids: torch.Tensor  # (rows,) on the device: the token at each row
    positions: torch.Tensor  # (rows,) on the device: what really ran


class Runner(Protocol):
    """A model runner of one vLLM generation, reduced to what capture needs."""

    name: str

    def enable(self, aux_layer: int) -> None:
        """Make the model return the residual stream that enters block ``aux_layer``."""

    def disable(self) -> None:
        """Undo ``enable``."""

    def step(self) -> Step | None:
        """Return the batch that waits for sampling, or None when there is none.

        Valid between the runner's execute_model and its sample_tokens. Raises CaptureError when
        the runner's state is not what this adapter was written for.
        """


class CaptureError(RuntimeError):
    """Capture cannot go on; serving can."""


def single_residual(aux_hidden_states: Any, rows: int) -> torch.Tensor:
    """Return the one auxiliary tensor, or raise CaptureError when it is not what was asked for.

    This is the self-check on live steps: a stale compiled graph or a moved attribute shows here.
    """
    if aux_hidden_states is None or len(aux_hidden_states) != 1:
        found = "none" if aux_hidden_states is None else str(len(aux_hidden_states))
        raise CaptureError(f"expected 1 auxiliary hidden state from the model, found {found}")
    residual = aux_hidden_states[0]
    if not isinstance(residual, torch.Tensor) or residual.ndim != 2 or residual.shape[0] < rows:  # noqa: PLR2004
        raise CaptureError(
            f"auxiliary hidden state has shape {getattr(residual, 'shape', None)} for {rows} rows"
        )
    return residual
