"""Adapter for vLLM's V2 model runner (vllm/v1/worker/gpu/model_runner.py), the default on GPUs.

Written from the source of vLLM 0.32.0 and checked against recorded shapes only: V2 needs Triton,
which no CPU has.
"""

from subtext_sidecar.plugin.aux_output import AuxOutput
from subtext_sidecar.plugin.step import Step, single_residual


class RunnerV2(AuxOutput):
    """Reads the InputBatch that V2 keeps in ``execute_model_state`` until sampling."""

    name = "v2"

    def step(self) -> Step | None:
        """Return the batch that waits for sampling; its order is decode first, not the scheduler's."""
        state = self._runner.execute_model_state
        if state is None:
            return None
        batch = state.input_batch
        count = batch.num_reqs
        row_starts = batch.query_start_loc_np[: count + 1].tolist()
        return Step(
            request_ids=batch.req_ids,
            row_starts=row_starts,
            first_positions=batch.num_computed_tokens_np[:count].tolist(),
            residual=single_residual(state.aux_hidden_states, row_starts[-1]),
            token_ids=batch.input_ids,
            positions=batch.positions,
        )
