"""Adapter for vLLM's V2 model runner (vllm/v1/worker/gpu/model_runner.py), the default on GPUs.

V2 needs Triton. The tests run it on a CPU, where Triton's kernels are interpreted, and with
``pytest -m gpu`` on a CUDA device, with graphs.
"""

from collections.abc import Iterable
from typing import Any

from subtext_sidecar.plugin.step import Step, row_starts, single_residual
from subtext_sidecar.plugin.vllm.aux_output import AuxOutput


class RunnerV2(AuxOutput):
    """Reads the InputBatch that V2 keeps in ``execute_model_state`` until sampling."""

    name = "v2"

    def executed(self) -> Any:
        """Return the state that waits for sampling."""
        return self._runner.execute_model_state

    def received(self, result: Any) -> Iterable[str]:
        """Return whose keys and values came, from the result or what an asynchronous one wraps."""
        output = getattr(getattr(result, "model_runner_output", result), "kv_connector_output", None)
        return (output.finished_recving if output is not None else None) or ()

    def step(self, executed: Any, rows: int) -> Step:
        """Return its batch; its order is decode first, not the scheduler's."""
        batch = executed.input_batch
        request_ids = batch.req_ids
        requests = len(request_ids)
        residual, d_model = single_residual(executed.aux_hidden_states, rows)
        return Step(
            request_ids,
            None if rows == requests else row_starts(batch.query_start_loc_np, requests),
            batch.num_computed_tokens_np.tolist(),
            residual,
            d_model,
            batch.input_ids,
            batch.positions,
        )
