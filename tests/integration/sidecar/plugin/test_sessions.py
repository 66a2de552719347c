"""Sessions of streaming inputs keep one internal id: each input is a request with its own prompt."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.vllm import tiny
from tests.support.vllm.judge import Reference, assert_counts_reconcile, judge
from tests.support.vllm.runs import job, run_jobs

pytestmark = pytest.mark.vllm

LAYER = 1
# Windows far apart: after an answer of a few tokens nothing is due for long, but the next prompt is.
POLICY = CapturePolicy(decode_stride=64, window=1, prompt_window=4, skip_first=0, max_rows_per_request=400)
INPUTS = [*tiny.prompts(3), [7, 8]]
ANSWER = 5
V2 = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}


@pytest.mark.parametrize("env", [{}, V2], ids=["v1", "v2"])
def test_each_input_is_a_capture_with_its_own_prompt(
    tmp_path: Path, tiny_llama: Path, tiny_reference: Reference, env: Mapping[str, str]
) -> None:
    session = {"id": "talk", "inputs": INPUTS, "max_tokens": ANSWER}
    one = job(
        tiny_llama,
        [],
        subtext={"layer": LAYER},
        policy=POLICY,
        engine=tiny.ENGINE,
        sessions=[session],
        asynchronous=bool(env),
    )

    (run,) = run_jobs(tmp_path, [one], env)

    judge(run, tiny_reference, LAYER)
    assert_counts_reconcile(run, sampled=len(INPUTS))
    assert run.counts()["requests_seen"] == len(INPUTS)
    prompts: defaultdict[str | None, list[int]] = defaultdict(list)
    for record in run.records:
        if record.header.phase == "prefill":
            prompts[record.header.request.capture_id].append(record.header.position)
    ends, start = [], 0
    for number, tokens in enumerate(INPUTS):
        end = start + len(tokens)
        ends.append(list(range(max(start, end - POLICY.prompt_window), end)))
        # The last token of an answer is not computed: the next input begins in its place.
        start = end + ANSWER - 1 if number < len(INPUTS) - 1 else end
    assert sorted(map(sorted, prompts.values())) == ends
    assert run.counts()["unobservable_prefix_cached"] == 0
