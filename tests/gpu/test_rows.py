"""The same end-to-end row test as on the CPU: V2 runner, CUDA graphs of every kind, async scheduling."""

from pathlib import Path
from typing import Any

import pytest
import torch

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.vllm.judge import Reference, assert_counts_reconcile, judge
from tests.support.vllm.runs import LAYER, job, request, run_jobs

pytestmark = [pytest.mark.gpu, pytest.mark.vllm]

SAMPLED = CapturePolicy(decode_stride=4, window=2, prompt_window=16, skip_first=4)
# FULL and PIECEWISE graphs, piecewise ones alone, none at all, and batches larger than any graph.
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "piecewise": {"compilation_config": {"cudagraph_mode": "PIECEWISE"}},
    "eager": {"enforce_eager": True},
    "small_graphs": {"compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8]}},
}


@pytest.mark.parametrize("mode", list(MODES))
def test_every_row_of_64_concurrent_requests_is_the_row_of_that_request_on_a_gpu(
    tmp_path: Path, prompts: list[list[int]], model_dir: Path, reference: Reference, mode: str
) -> None:
    assert torch.cuda.is_available(), "these tests were asked for, and need a CUDA device"
    requests = [
        request(number, prompt, max_tokens=44, ignore_eos=True) for number, prompt in enumerate(prompts)
    ]
    engine = {"enforce_eager": False, "max_num_seqs": 64, "max_num_batched_tokens": 96, **MODES[mode]}

    (run,) = run_jobs(tmp_path, [job(model_dir, requests, subtext={}, policy=SAMPLED, engine=engine)])

    assert judge(run, reference, LAYER).rows >= 2_000
    assert_counts_reconcile(run, sampled=len(prompts))
    assert (run.statuses[-1].enabled, run.statuses[-1].reason) == (True, "ok")
    assert "(runner v2)" in run.log
