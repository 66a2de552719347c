"""Captured and not captured engines share one cache of compiled code, and none gets another's code."""

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


def test_vanilla_one_layer_another_layer_and_vanilla_again_are_right_on_one_compile_cache(
    tmp_path: Path,
) -> None:
    # Three blocks compile in seconds. Nothing else differs from a default start: torch.compile, the
    # ahead-of-time cache and Inductor's are all on, below this directory.
    model = tiny.make_llama(tmp_path / "llama", num_hidden_layers=3)
    reference = Reference(model)
    requests = [
        request(number, prompt, max_tokens=16, ignore_eos=True)
        for number, prompt in enumerate(tiny.prompts(6))
    ]
    engine = {**tiny.ENGINE, "enforce_eager": False}
    layers = [None, 0, 1, None]
    cache = tmp_path / "cache"
    # But for what vLLM knows of its own classes: to find that out it imports itself once more.
    known = Path.home() / ".cache/vllm/modelinfos"
    known.mkdir(parents=True, exist_ok=True)
    cache.mkdir()
    (cache / "modelinfos").symlink_to(known)

    runs = run_jobs(
        tmp_path,
        [
            job(
                model,
                requests,
                subtext=None if layer is None else {"layer": layer},
                policy=EVERY,
                engine=engine,
            )
            for layer in layers
        ],
        {"VLLM_CACHE_ROOT": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")},
    )

    for run, layer in zip(runs, layers, strict=True):
        for one in requests:
            answer = reference.continue_greedily(one["prompt"], 16)
            assert run.texts[one["id"]] == one["prompt"] + answer
        if layer is None:
            assert run.records == []
        else:
            judge(run, reference, layer)
            assert_counts_reconcile(run, sampled=len(requests))
            assert positions(run) == wanted(run, prompts_of(requests), EVERY)
    assert "Warming up model for the compilation" in runs[0].log
    # What tells them apart is vLLM's own hash of the configuration, the key of its compiled code.
    vanilla, first, second, again = (run.result["config_hash"] for run in runs)
    assert vanilla == again
    assert len({vanilla, first, second}) == 3
    kept = list((cache / "torch_compile_cache" / "torch_aot_compile").iterdir())
    assert len(kept) == 3
