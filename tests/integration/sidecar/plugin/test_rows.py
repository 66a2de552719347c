"""The right rows: every captured vector against the Hugging Face forward pass of its request."""

from pathlib import Path

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.vllm.judge import Reference, assert_counts_reconcile, judge, positions, wanted
from tests.support.vllm.runs import job, request, run_jobs

pytestmark = pytest.mark.vllm

LAYER = 1
SAMPLED = CapturePolicy(decode_stride=4, window=2, prompt_window=16, skip_first=4)
ABORTED = range(0, 64, 9)


def test_every_row_of_64_concurrent_requests_is_the_row_of_that_request_whatever_the_scheduler_does(
    tmp_path: Path, prompts: list[list[int]], short_model: Path, short_reference: Reference
) -> None:
    # 64 requests at once; prompts are cut where 256 tokens a step end; there are too few cache blocks for
    # all to grow, so some are preempted and computed again; every ninth is aborted on its way.
    requests = [
        request(
            number,
            prompt,
            max_tokens=44,
            ignore_eos=True,
            abort_after=32 + number // 16 if number in ABORTED else None,
        )
        for number, prompt in enumerate(prompts)
    ]
    # Then eight prompts that end one token after a cache block, and the same again while the first
    # ones are still there: all but that token is cached.
    requests += [
        request(
            64 + number,
            prompts[number % 8 + 40][:33],
            arrives=80 + number // 8 * 20,
            max_tokens=40,
            ignore_eos=True,
        )
        for number in range(16)
    ]
    engine = {
        "max_num_seqs": 64,
        "max_num_batched_tokens": 256,
        "block_size": 32,
        "num_gpu_blocks_override": 200,
        "disable_log_stats": False,
        "skip_tokenizer_init": True,
    }
    captured = job(short_model, requests, subtext={"layer": LAYER}, policy=SAMPLED, engine=engine)
    (run,) = run_jobs(tmp_path, [captured])

    judged = judge(run, short_reference, LAYER)
    assert judged.rows >= 2_000
    assert_counts_reconcile(run, sampled=80)
    assert run.result["concurrent"] == 64
    assert run.result["preemptions"] > 0
    assert run.result["aborted"] == [str(number) for number in ABORTED]
    counts = run.counts()
    assert counts["unobservable_prefix_cached"] > 0
    assert counts["positions_repeated"] > 0
    assert {record.header.phase for record in run.records} == {"prefill", "decode"}
    # Nothing is missing that was not counted as missing, and nothing came that was not wanted.
    complete = {str(number): prompt for number, prompt in enumerate(prompts) if number not in ABORTED}
    complete |= {one["id"]: one["prompt"] for one in requests[64:]}
    asked = wanted(run, complete, SAMPLED)
    came = {(request_id, position) for request_id, position in positions(run) if request_id in complete}
    assert came <= asked
    assert len(asked - came) <= counts["unobservable_prefix_cached"]
    status = run.statuses[-1]
    assert (status.enabled, status.reason, status.model) == (True, "ok", "smollm2")
