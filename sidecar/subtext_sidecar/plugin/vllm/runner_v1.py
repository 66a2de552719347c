"""Adapter for vLLM's V1 model runner (vllm/v1/worker/gpu_model_runner.py, and the CPU's subclass)."""

from collections.abc import Iterable
from typing import Any

from subtext_sidecar.plugin.step import Step, row_starts, single_residual
from subtext_sidecar.plugin.vllm.aux_output import AuxOutput


class RunnerV1(AuxOutput):
    """Reads ``execute_model_state`` and ``input_batch`` of a V1 GPUModelRunner."""

    name = "v1"

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        self._computed: Any = None
        self._first_positions = memoryview(b"")

    def executed(self) -> Any:
        """Return the state that waits for sampling."""
        return self._runner.execute_model_state

    def received(self, result: Any) -> Iterable[str]:
        """Return whose keys and values came, from the result, or before sampling from the runner."""
        output = getattr(result, "kv_connector_output", None) or self._runner.kv_connector_output
        return (output.finished_recving if output is not None else None) or ()

    def step(self, executed: Any, rows: int) -> Step:
        """Return its batch."""
        runner = self._runner
        batch = runner.input_batch
        if batch.num_computed_tokens_cpu is not self._computed:
            # The same array in every step, and much cheaper to look into this way.
            self._computed = batch.num_computed_tokens_cpu
            self._first_positions = memoryview(self._computed)
        request_ids = batch.req_ids
        requests = len(request_ids)
        residual, d_model = single_residual(executed.aux_hidden_states, rows)
        return Step(
            request_ids,
            None if rows == requests else row_starts(runner.query_start_loc.np, requests),
            self._first_positions,
            residual,
            d_model,
            runner.input_ids.gpu,
            runner.positions,
        )
