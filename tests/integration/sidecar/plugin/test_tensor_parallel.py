"""Two tensor-parallel ranks hold the same residual stream: one of them hands rows over."""

from pathlib import Path

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.vllm import tiny
from tests.support.vllm.judge import (
    Reference,
    assert_counts_reconcile,
    judge,
    positions,
    prompts_of,
    wanted,
)
from tests.support.vllm.runs import job, request, run_jobs

pytestmark = pytest.mark.vllm

EVERY = CapturePolicy(decode_stride=1, window=1, prompt_window=64, skip_first=0, max_rows_per_request=400)
LAYER = 1
ENV = {
    # vLLM wants a NUMA node for each rank, unless its threads are not bound.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
ENGINE = {**tiny.ENGINE, "distributed_executor_backend": "mp"}


def test_two_ranks_hand_each_row_over_once_and_pipeline_stages_say_that_they_hand_over_none(
    tmp_path: Path, tiny_llama: Path, tiny_reference: Reference
) -> None:
    requests = [
        request(number, prompt, max_tokens=16, ignore_eos=True)
        for number, prompt in enumerate(tiny.prompts(6))
    ]
    # Pipeline stages start and are asked nothing: they cannot run eager on a CPU in vLLM 0.32, captured or
    # not, because the tensors between them are made in a warm-up that it leaves out there.
    ranks, stages = run_jobs(
        tmp_path,
        [
            job(tiny_llama, asked, subtext={"layer": LAYER}, policy=EVERY, engine={**ENGINE, **parallel})
            for asked, parallel in (
                (requests, {"tensor_parallel_size": 2}),
                ([], {"pipeline_parallel_size": 2}),
            )
        ],
        ENV,
    )

    judge(ranks, tiny_reference, LAYER)
    assert_counts_reconcile(ranks, sampled=len(requests))
    assert positions(ranks) == wanted(ranks, prompts_of(requests), EVERY)
    assert len({status.source for status in ranks.statuses}) == 1
    assert ranks.log.count("capturing layer") == 2
    assert {(status.enabled, status.reason) for status in stages.statuses} == {(False, "pipeline_parallel")}
