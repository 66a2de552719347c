"""A request's trace comes with its rows, as vLLM hands it to the plugin: in the sampling parameters."""

from pathlib import Path
from typing import Any

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.vllm import tiny
from tests.support.vllm.runs import job, request, run_jobs

pytestmark = pytest.mark.vllm

EVERY = CapturePolicy(decode_stride=1, window=1, prompt_window=64, skip_first=0, max_rows_per_request=400)
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# What comes with a request, and the ids that its rows then carry.
ARGUMENTS: list[tuple[dict[str, Any] | None, tuple[str | None, str | None]]] = [
    ({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}, (TRACE_ID, SPAN_ID)),
    ({"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"}, (None, None)),
    ({"traceparent": "anything"}, (None, None)),
    ({"traceparent": 5}, (None, None)),
    (None, (None, None)),
]


def test_rows_carry_the_trace_of_their_request_and_a_malformed_one_harms_nobody(
    tmp_path: Path, tiny_llama: Path
) -> None:
    prompts = tiny.prompts(len(ARGUMENTS))
    requests = [
        request(number, prompt, max_tokens=4, ignore_eos=True, extra_args=extra_args)
        for number, (prompt, (extra_args, _)) in enumerate(zip(prompts, ARGUMENTS, strict=True))
    ]

    (run,) = run_jobs(
        tmp_path, [job(tiny_llama, requests, subtext={"layer": 2}, policy=EVERY, engine=tiny.ENGINE)]
    )

    found: dict[str, set[tuple[str | None, str | None]]] = {}
    for record in run.records:
        of = record.header.request
        found.setdefault(of.request_id, set()).add((of.trace_id, of.span_id))
    assert found == {str(number): {ids} for number, (_, ids) in enumerate(ARGUMENTS)}
    assert (run.statuses[-1].enabled, run.statuses[-1].errors) == (True, {})
