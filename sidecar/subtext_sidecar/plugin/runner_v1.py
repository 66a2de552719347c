"""Adapter for vLLM's V1 model runner (vllm/v1/worker/gpu_model_runner.py, and the CPU's subclass)."""

from typing import Any

from subtext_sidecar.plugin.aux_output import AuxOutput
from subtext_sidecar.plugin.step import Step, single_residual, starts_of


class RunnerV1(AuxOutput):
    """Reads ``execute_model_state`` and ``input_batch`` of a V1 GPUModelRunner."""

    name = "v1"

    def executed(self) -> Any:
        """Return the state that waits for sampling."""
        return self._runner.execute_model_state

    def step(self, executed: Any, rows: int) -> Step:
        """Return its batch."""
        runner = self._runner
        batch = runner.input_batch
        request_ids = batch.req_ids
        return Step(
            request_ids,
            starts_of(runner.query_start_loc.np, len(request_ids), rows),
            batch.num_computed_tokens_cpu,
            single_residual(executed.aux_hidden_states, rows),
            runner.input_ids.gpu,
            runner.positions,
        )
