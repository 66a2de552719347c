"""Adapter for vLLM's V1 model runner (vllm/v1/worker/gpu_model_runner.py, and the CPU's subclass)."""

from subtext_sidecar.plugin.aux_output import AuxOutput
from subtext_sidecar.plugin.step import Step, single_residual


class RunnerV1(AuxOutput):
    """Reads ``execute_model_state`` and ``input_batch`` of a V1 GPUModelRunner."""

    name = "v1"

    def step(self) -> Step | None:
        """Return the batch that waits for sampling."""
        runner = self._runner
        state = runner.execute_model_state
        if state is None:
            return None
        batch = runner.input_batch
        count = batch.num_reqs
        row_starts = runner.query_start_loc.np[: count + 1].tolist()
        return Step(
            request_ids=batch.req_ids,
            row_starts=row_starts,
            first_positions=batch.num_computed_tokens_cpu[:count].tolist(),
            residual=single_residual(state.aux_hidden_states, row_starts[-1]),
            token_ids=runner.input_ids.gpu,
            positions=runner.positions,
        )
