"""Engines that cannot be captured serve on, and their heartbeat says why."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.vllm import tiny
from tests.support.vllm.judge import Reference, judge
from tests.support.vllm.runs import EngineRun, job, request, run_jobs

pytestmark = pytest.mark.vllm

LAYER = 1
PROMPTS = tiny.prompts(4)
REQUESTS = [request(number, prompt, max_tokens=8, ignore_eos=True) for number, prompt in enumerate(PROMPTS)]
AUX_OWNER = {
    "method": "extract_hidden_states",
    "num_speculative_tokens": 1,
    "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [1, 2]}},
}


def engine_of(model: Path, *, is_captured: bool = True, **engine: Any) -> dict[str, Any]:
    subtext = {"layer": LAYER, **engine.pop("subtext", {})} if is_captured else None
    return job(model, REQUESTS, subtext=subtext, engine={**tiny.ENGINE, **engine})


def off(run: EngineRun) -> tuple[str, str]:
    last = run.statuses[-1]
    assert (last.enabled, run.records, last.errors) == (False, [], {})
    return last.reason, last.detail


def test_an_engine_that_cannot_be_captured_serves_on_and_its_heartbeat_says_why(
    tmp_path: Path, tiny_llama: Path
) -> None:
    gemma = tiny.make_gemma(tmp_path / "gemma")
    vanilla_llama, owned, pooling, no_secret, vanilla_gemma, no_interface, other_implementation = run_jobs(
        tmp_path,
        [
            engine_of(tiny_llama, is_captured=False),
            engine_of(tiny_llama, speculative_config=AUX_OWNER),
            engine_of(tiny_llama, runner="pooling"),
            engine_of(tiny_llama, subtext={"secret_file": "nowhere"}),
            engine_of(gemma, is_captured=False),
            engine_of(gemma),
            engine_of(gemma, model_impl="transformers"),
        ],
    )

    assert off(owned)[0] == "speculative_method"
    assert owned.texts == vanilla_llama.texts
    assert off(pooling)[0] == "pooling_model"
    assert pooling.result["answered"] == len(REQUESTS)
    reason, detail = off(no_secret)
    assert reason == "bad_secret"
    assert "additional_config.subtext.secret_file: nowhere cannot be read" in detail
    assert no_secret.texts == vanilla_llama.texts
    reason, detail = off(no_interface)
    assert reason == "model_class"
    assert "GemmaForCausalLM" in detail
    assert no_interface.texts == vanilla_gemma.texts
    # And the fix that the refusal names is one.
    assert "--model-impl transformers" in detail
    assert other_implementation.texts == vanilla_gemma.texts
    judge(other_implementation, Reference(gemma), LAYER)
    assert len(other_implementation.records) > len(REQUESTS)
