"""Prefill and decode in two real engines, with NIXL between them: one request, one draw, no row twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from subtext_sidecar.local.policy import CapturePolicy
from tests.support.services import free_port
from tests.support.vllm import tiny
from tests.support.vllm.judge import Reference, assert_counts_reconcile, judge, positions
from tests.support.vllm.meeting import TRANSFER
from tests.support.vllm.runs import EngineRun, job, request, run_jobs

pytestmark = pytest.mark.vllm

LAYER = 1
POLICY = CapturePolicy(
    request_rate=0.5, decode_stride=1, window=1, prompt_window=4, skip_first=0, max_rows_per_request=400
)
REQUESTS = 24
ANSWER = 6
BLOCK = tiny.ENGINE["block_size"]
PROMPTS = tiny.prompts(REQUESTS)
TO_PREFILL = {TRANSFER: {"do_remote_decode": True, "do_remote_prefill": False}}
V2 = {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}


def half(model: Path, role: str, kv_role: str, requests: list[dict[str, Any]], **changes: Any) -> Any:
    transfer = {"kv_connector": "NixlConnector", "kv_role": kv_role, "kv_buffer_device": "cpu"}
    return job(
        model,
        requests,
        subtext={"layer": LAYER, "split": "both"},
        policy=POLICY,
        engine={**tiny.ENGINE, "kv_transfer_config": transfer},
        half=role,
        env={"VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port())},
        **changes,
    )


def roles(run: EngineRun) -> set[str | None]:
    return {record.header.request.role for record in run.records}


def sampled(run: EngineRun) -> set[str]:
    return {record.header.request.request_id for record in run.records}


@pytest.mark.parametrize(
    ("kv_roles", "env"),
    [(("kv_producer", "kv_consumer"), {}), (("kv_both", "kv_both"), V2)],
    ids=["v1", "v2"],
)
def test_two_engines_draw_once_and_take_each_row_once(
    tmp_path: Path,
    tiny_llama: Path,
    tiny_reference: Reference,
    kv_roles: tuple[str, str],
    env: Mapping[str, str],
) -> None:
    first = [
        request(number, prompt, max_tokens=1, ignore_eos=True, extra_args=TO_PREFILL)
        for number, prompt in enumerate(PROMPTS)
    ]
    second = [
        request(number, prompt, max_tokens=ANSWER, ignore_eos=True) for number, prompt in enumerate(PROMPTS)
    ]

    prefill, decode = run_jobs(
        tmp_path,
        [
            half(tiny_llama, "prefill", kv_roles[0], first),
            half(tiny_llama, "decode", kv_roles[1], second, asynchronous=bool(env)),
        ],
        env,
    )

    for number, prompt in enumerate(PROMPTS):
        assert decode.texts[str(number)] == [*prompt, *tiny_reference.continue_greedily(prompt, ANSWER)]
    judge(prefill, tiny_reference, LAYER)
    judge(decode, tiny_reference, LAYER)
    # One draw for both, and each request in the denominators once.
    chosen = sampled(decode)
    assert 0 < len(chosen) < REQUESTS
    assert sampled(prefill) == chosen
    assert (roles(prefill), roles(decode)) == ({"prefill"}, {"decode"})
    counts, continued = prefill.counts(), decode.counts()
    assert counts["requests_prefilled"] == continued["requests_seen"] == REQUESTS
    assert continued["requests_continued"] == REQUESTS
    assert counts["requests_prefilled_sampled"] == continued["requests_sampled"] == len(chosen)
    assert counts["requests_seen"] == counts["requests_sampled"] == 0
    for name in ("ignored_kv_transfer", "ignored_transfer_id", "unobservable_prefix_cached"):
        assert counts[name] == continued[name] == 0
    # The prompt's last tokens are the first engine's, also the very last, which both compute.
    assert_counts_reconcile(decode, sampled=len(chosen))
    ends = {number: len(prompt) for number, prompt in enumerate(PROMPTS) if str(number) in chosen}
    assert positions(prefill) == {(str(n), p) for n, end in ends.items() for p in range(end - 4, end)}
    assert positions(decode) == {
        (str(n), p) for n, end in ends.items() for p in range(end, end + ANSWER - 1)
    }


def test_a_prompt_that_the_decode_engine_had_in_its_cache_is_not_the_other_engines(
    tmp_path: Path, tiny_llama: Path, tiny_reference: Reference
) -> None:
    """Clients name a transfer that never was; of all but the first the prompt but one token is cached."""
    prompt = [*range(3, 3 + BLOCK), 500]
    claim = {TRANSFER: {"do_remote_prefill": False, "remote_request_id": "never", "transfer_id": "was"}}
    first = [request(0, prompt, max_tokens=1, ignore_eos=True, extra_args=TO_PREFILL)]
    second = [
        request(0, prompt, max_tokens=2, ignore_eos=True),
        *(
            request(number, prompt, arrives=200, max_tokens=2, ignore_eos=True, extra_args=claim)
            for number in range(1, 9)
        ),
    ]

    _, decode = run_jobs(
        tmp_path,
        [
            half(tiny_llama, "prefill", "kv_producer", first),
            half(tiny_llama, "decode", "kv_consumer", second),
        ],
    )

    judge(decode, tiny_reference, LAYER)
    counts = decode.counts()
    assert (counts["requests_seen"], counts["requests_continued"], counts["ignored_kv_transfer"]) == (
        9,
        1,
        8,
    )
    chosen = sampled(decode) - {"0"}
    # Of the four wanted tokens of each prompt those that were cached are counted, and the others read here:
    # the last one of each, and all of the first one's, which may come before the block is there.
    read = {(one, place) for one, place in positions(decode) if one in chosen and place <= BLOCK}
    assert counts["unobservable_prefix_cached"] == 4 * len(chosen) - len(read)
    assert {one for one, place in read if place < BLOCK} <= {"1"}
    for record in decode.records:
        if record.header.request.request_id in chosen:
            assert record.header.request.role is None
    assert {(one, BLOCK) for one in chosen} <= positions(decode)
