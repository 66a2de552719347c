"""What has no row, comes twice, or is no text: each is counted, and no wrong row comes of it."""

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
from tests.support.vllm.runs import EngineRun, job, request, run_jobs

pytestmark = pytest.mark.vllm

LAYER = 1
EVERY = CapturePolicy(decode_stride=1, window=1, prompt_window=64, skip_first=0, max_rows_per_request=400)


def captured(
    model: Path, requests: list[dict[str, Any]], engine: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    full = {**tiny.ENGINE, "disable_log_stats": False, **(engine or {})}
    return job(model, requests, subtext={"layer": LAYER}, policy=EVERY, engine=full, **changes)


def long_answers(count: int, tokens: int) -> list[dict[str, Any]]:
    return [
        request(number, prompt, max_tokens=tokens, ignore_eos=True)
        for number, prompt in enumerate(tiny.prompts(count))
    ]


def missing(run: EngineRun, requests: list[dict[str, Any]]) -> int:
    """Return how many wanted rows did not come; none came that was not wanted."""
    asked = wanted(run, prompts_of(requests), EVERY)
    assert positions(run) <= asked
    return len(asked) - len(run.records)


def test_every_blind_spot_is_counted_and_no_wrong_row_comes_of_it(
    tmp_path: Path, tiny_llama: Path, tiny_reference: Reference
) -> None:
    # Prompts of one cache block and one token; asked again while the first are still there.
    prompt = [[number + 3, *range(100, 132)] for number in range(4)]
    again = [
        request(number, prompt[number % 4], arrives=number // 4 * 12, max_tokens=20, ignore_eos=True)
        for number in range(8)
    ]
    scarce = long_answers(8, 70)
    drafted = long_answers(8, 60)
    ngram = {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 2,
        "prompt_lookup_min": 1,
    }

    cached, preempted, guessed = run_jobs(
        tmp_path,
        [
            captured(tiny_llama, again),
            captured(tiny_llama, scarce, {"num_gpu_blocks_override": 20, "enable_prefix_caching": False}),
            captured(tiny_llama, drafted, {"speculative_config": ngram}),
        ],
    )

    for run, requests in ((cached, again), (preempted, scarce), (guessed, drafted)):
        judge(run, tiny_reference, LAYER)
        assert_counts_reconcile(run, sampled=8)
        expected = tiny_reference.continue_greedily(requests[0]["prompt"], 16)
        assert run.texts["0"][len(requests[0]["prompt"]) :][:16] == expected
    assert missing(cached, again) == cached.counts()["unobservable_prefix_cached"] == 4 * 32
    assert preempted.result["preemptions"] > 0
    assert preempted.counts()["positions_repeated"] > 0
    assert missing(preempted, scarce) == 0
    # Accepted drafts are text without a row of their own; rejected ones are no text, and have no row.
    assert missing(guessed, drafted) == guessed.counts()["unobservable_drafted"] > 0
    assert guessed.counts()["rows_handed_over"] > 8 * 30


def test_the_pass_on_the_end_token_of_a_finished_text_gives_no_row(
    tmp_path: Path, tiny_llama: Path, tiny_reference: Reference
) -> None:
    prompts = tiny.prompts(4, seed=1)
    answers = [tiny_reference.continue_greedily(prompt, 30) for prompt in prompts]
    # A model that says its end token after 12 to 24 tokens of the first answer.
    end = next(token for token in answers[0][12:24] if token not in answers[0][:12])
    model = tiny.with_end_token(tiny_llama, tmp_path / "model", end)
    requests = [request(number, prompt, max_tokens=30) for number, prompt in enumerate(prompts)]

    (run,) = run_jobs(tmp_path, [captured(model, requests, asynchronous=True)])

    judge(run, tiny_reference, LAYER)
    assert_counts_reconcile(run, sampled=4)
    assert run.texts["0"] == prompts[0] + answers[0][: answers[0].index(end) + 1]
    # The end token is the last of the text, and asynchronous scheduling had begun the step behind it.
    assert run.counts()["dropped_after_end"] == sum(end in answer for answer in answers) > 0
    assert missing(run, requests) == 0
    assert end not in {record.header.token_id for record in run.records if record.header.phase == "decode"}
