"""Prompts of embeddings have no tokens: what the runner's buffers hold there is another request's."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.vllm import tiny
from tests.support.vllm.runs import job, request, run_jobs

pytestmark = pytest.mark.vllm

EVERY = CapturePolicy(decode_stride=1, window=1, prompt_window=64, skip_first=0, max_rows_per_request=400)
V2 = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}


@pytest.mark.parametrize("env", [{}, V2], ids=["v1", "v2"])
def test_no_row_of_an_embedded_prompt_carries_a_token_of_the_slots_former_request(
    tmp_path: Path, tiny_llama: Path, env: Mapping[str, str]
) -> None:
    secret, embedded = tiny.prompts(2)
    requests = [
        request(0, secret, max_tokens=4, ignore_eos=True),
        request(1, embedded, arrives=8, embedded_width=64, max_tokens=6, ignore_eos=True),
    ]
    engine = {**tiny.ENGINE, "max_num_seqs": 1, "enable_prompt_embeds": True}

    (run,) = run_jobs(
        tmp_path, [job(tiny_llama, requests, subtext={"layer": 1}, policy=EVERY, engine=engine)], env
    )

    rows = [record.header for record in run.records if record.header.request.request_id == "1"]
    first = len(embedded)
    # The last generated token is never computed.
    assert [row.position for row in rows] == list(range(first, first + 5))
    assert [row.token_id for row in rows] == run.texts["1"][first:-1]
    assert run.counts()["dropped_embedded"] == first
    assert run.counts()["requests_sampled"] == 2
