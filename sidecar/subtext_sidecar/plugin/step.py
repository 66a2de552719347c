"""What one engine step looks like to the capture code, whichever model runner ran it."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import torch


class Step(msgspec.Struct, frozen=True):
    """One executed batch, before its tokens are sampled.

    Rows of request i are row_starts[i] .. row_starts[i + 1] - 1 of every tensor, at positions
    first_positions[i], first_positions[i] + 1, ... Tensors may have padding rows behind the last.
    They belong to the runner and are overwritten by the next step: see device.Device.
    """

    request_ids: Sequence[str]  # internal ids, in batch order, which is not scheduler order
    row_starts: Sequence[int] | None  # len(request_ids) + 1; None: every request has one row
    first_positions: Sequence[int]  # optimistic under speculative decoding, see positions
    residual: torch.Tensor  # (rows, d_model): the output of the captured block
    d_model: int
    token_ids: torch.Tensor  # (rows,) on the device: the token at each row
    positions: torch.Tensor  # (rows,) on the device: what really ran


class Runner(Protocol):
    """A model runner of one vLLM generation, reduced to what capture needs."""

    name: str

    def enable(self, aux_layer: int) -> None:
        """Make the model return the residual stream that enters block ``aux_layer``."""

    def disable(self) -> None:
        """Undo ``enable``."""

    def executed(self) -> Any:
        """Return what the runner keeps of an executed batch until it is sampled, or None."""

    def received(self, result: Any) -> Iterable[str]:
        """Return the internal ids of requests that a KV connector has brought keys and values for.

        ``result`` is what ``execute_model`` or ``sample_tokens`` returned: ask after each. Ids can recur.
        """

    def step(self, executed: Any, rows: int) -> Step:
        """Return that batch of ``rows`` tokens.

        Valid until the runner's next execute_model, which is what changes the batch. Raises
        CaptureError when the runner's state is not what this adapter was written for.
        """


class CaptureError(RuntimeError):
    """Capture cannot go on; serving can."""


def single_residual(aux_hidden_states: Any, rows: int) -> tuple[torch.Tensor, int]:
    """Return the auxiliary tensor and its width; raises CaptureError when it is not what was asked for.

    This is the self-check on live steps: a stale compiled graph or a moved attribute shows here.
    """
    if aux_hidden_states is None or len(aux_hidden_states) != 1:
        found = "none" if aux_hidden_states is None else str(len(aux_hidden_states))
        raise CaptureError(f"expected 1 auxiliary hidden state from the model, found {found}")
    residual: torch.Tensor = aux_hidden_states[0]
    try:
        found_rows, d_model = residual.shape
    except (AttributeError, ValueError) as error:
        raise CaptureError(f"auxiliary hidden state is no matrix: {type(residual)} {error}") from error
    if found_rows < rows:
        raise CaptureError(f"auxiliary hidden state has {found_rows} rows for a batch of {rows}")
    return residual, d_model


def row_starts(starts: npt.NDArray[np.int32], requests: int) -> Sequence[int]:
    """Return where each request's rows begin, and the end."""
    values: list[int] = starts[: requests + 1].tolist()
    return values
