"""The V2 model runner, which GPUs use by default, on a CPU: its Triton kernels run interpreted."""

from pathlib import Path
from typing import Any

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

LAYER = 1
EVERY = CapturePolicy(decode_stride=1, window=1, prompt_window=64, skip_first=0, max_rows_per_request=400)
V2 = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}


def test_rows_of_the_v2_runner_are_right_with_chunks_cached_prompts_preemption_abort_and_async_steps(
    tmp_path: Path, tiny_llama: Path, tiny_reference: Reference
) -> None:
    mixed = [
        request(
            number,
            prompt,
            max_tokens=40,
            ignore_eos=True,
            abort_after=9 + number if number % 5 == 0 else None,
        )
        for number, prompt in enumerate(tiny.prompts(16))
    ]
    # Prompts of one cache block and one token; asked again while the first are still there.
    block = [[number + 3, *range(100, 132)] for number in range(4)]
    again = [
        request(number, block[number % 4], arrives=number // 4 * 12, max_tokens=20, ignore_eos=True)
        for number in range(8)
    ]

    def engine_of(requests: list[dict[str, Any]], engine: dict[str, Any], **changes: Any) -> dict[str, Any]:
        full = {**tiny.ENGINE, "disable_log_stats": False, **engine}
        return job(tiny_llama, requests, subtext={"layer": LAYER}, policy=EVERY, engine=full, **changes)

    scarce = {"max_num_batched_tokens": 64, "num_gpu_blocks_override": 30}
    busy, cached = run_jobs(
        tmp_path,
        [engine_of(mixed, scarce, asynchronous=True), engine_of(again, {})],
        V2,
    )

    assert busy.log.count("(runner v2,") == 2
    judge(busy, tiny_reference, LAYER)
    assert_counts_reconcile(busy, sampled=16)
    assert busy.result["aborted"] == ["0", "5", "10", "15"]
    assert busy.result["preemptions"] > 0
    complete = {
        request_id: prompt
        for request_id, prompt in prompts_of(mixed).items()
        if request_id not in busy.result["aborted"]
    }
    asked = wanted(busy, complete, EVERY)
    came = {(request_id, position) for request_id, position in positions(busy) if request_id in complete}
    assert came <= asked
    assert len(asked - came) <= busy.counts()["unobservable_prefix_cached"]
    judge(cached, tiny_reference, LAYER)
    asked = wanted(cached, prompts_of(again), EVERY)
    assert positions(cached) <= asked
    assert len(asked) - len(cached.records) == cached.counts()["unobservable_prefix_cached"] == 4 * 32
